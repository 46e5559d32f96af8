/* The error browser: images of a test set with the predictions of one or two models. */

const ERRORS_PER_PAGE = 50;
const MAX_SUGGESTIONS = 5000; // classes that the text fields suggest
const MAX_PAIRS = 30;

/**
 * Renders the section, or returns null if no predictions were saved.
 * @param sets - the value of `collect_predictions` (report/predictions.py)
 */
function renderErrors(sets) {
  if (!sets.length) return null;
  const controls = errorControls(sets, { load, update });
  const parts = {
    note: h("p", { class: "note", id: "errors-note" }),
    count: h("span", { id: "errors-count", role: "status" }),
    rows: h("table", { class: "errors", id: "errors-rows" }),
    pairs: h("table", { class: "errors", id: "errors-pairs" }),
  };
  let view = null, matches = [], page = 0, loads = 0;

  async function load() {
    const request = ++loads; // a later choice may be read faster
    view = null;
    const set = sets[controls.set.value];
    fillModels(controls, set);
    parts.count.textContent = "reading ...";
    try {
      const read = await readErrors(set, controls.model.value, controls.other.value);
      if (request !== loads) return;
      view = read;
      const names = view.classes.slice(0, MAX_SUGGESTIONS);
      controls.classes.replaceChildren(...names.map((name) => h("option", { value: name })));
      parts.note.replaceChildren(...errorNotes(set, view));
      parts.pairs.replaceChildren(...pairRows(view, choosePair));
      update();
    } catch (error) {
      if (request === loads) parts.count.textContent = `The predictions cannot be read: ${error}`;
    }
  }
  function update() {
    if (!view) return; // `load` updates when it has read
    matches = findImages(view, readFilters(controls));
    turn(-page);
  }
  function turn(step) {
    if (!view) return;
    const last = Math.max(Math.ceil(matches.length / ERRORS_PER_PAGE) - 1, 0);
    page = Math.min(Math.max(page + step, 0), last);
    const first = page * ERRORS_PER_PAGE, shown = matches.slice(first, first + ERRORS_PER_PAGE);
    parts.count.textContent = `${matches.length} of ${view.labels.length} images`
      + (matches.length ? `, ${first + 1} to ${first + shown.length}` : "");
    parts.rows.replaceChildren(errorHead(view), h("tbody", {}, Array.from(shown, (i) => errorRow(view, i))));
    parts.rows.parentElement.scrollTop = 0;
    previous.setAttribute("aria-disabled", page === 0); // not disabled, which would lose the focus
    next.setAttribute("aria-disabled", page === last);
  }
  function choosePair(label, predicted) {
    if (!view) return;
    const values = { filter: "wrong", actual: view.classes[label], predicted: view.classes[predicted], min: 0, max: 100 };
    for (const [name, value] of Object.entries(values)) controls[name].value = value;
    update();
  }
  const previous = h("button", { id: "errors-previous", onclick: () => turn(-1) }, "Previous");
  const next = h("button", { id: "errors-next", onclick: () => turn(1) }, "Next");
  const result = section("errors", "Errors", controls.elements, parts.note,
    h("div", { class: "browser" },
      h("div", {},
        h("div", { class: "controls" }, parts.count, previous, next),
        h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Images" }, parts.rows)),
      h("details", { open: true }, h("summary", {}, "Most frequent confusions of A"),
        h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Confusions" }, parts.pairs))));
  load();
  return result;
}

/** Makes the controls; `load` is called when other predictions are needed, else `update`. */
function errorControls(sets, { load, update }) {
  const select = (id, options, onchange) => h("select", { id, onchange }, options.map(([value, text]) => h("option", { value }, text)));
  const input = (id, attributes) => h("input", { id, oninput: update, ...attributes });
  const texts = (table) => Object.entries(table).map(([value, [text]]) => [value, text]);
  const range = { type: "number", min: 0, max: 100, step: "any" };
  const controls = {
    set: select("errors-set", sets.map((set, i) => [i, set.name]), load),
    model: select("errors-model", [], load),
    other: select("errors-other", [], load),
    filter: select("errors-filter", texts(ERROR_FILTERS), update),
    actual: input("errors-true", { type: "search", list: "errors-classes" }),
    predicted: input("errors-predicted", { type: "search", list: "errors-classes" }),
    min: input("errors-min", { ...range, value: 0 }),
    max: input("errors-max", { ...range, value: 100 }),
    sort: select("errors-sort", texts(ERROR_ORDERS), update),
    classes: h("datalist", { id: "errors-classes" }),
  };
  const labelled = (text, ...elements) => h("label", {}, text, " ", elements);
  controls.elements = [
    h("div", { class: "controls" }, labelled("Test set", controls.set), labelled("Model A", controls.model), labelled("Model B", controls.other)),
    h("div", { class: "controls" },
      labelled("Show", controls.filter), labelled("True class", controls.actual), labelled("Class predicted by A", controls.predicted),
      h("span", {}, labelled("Confidence of A from", controls.min), " ", labelled("to", controls.max, " %")), labelled("Order", controls.sort), controls.classes),
  ];
  return controls;
}

/** Offers the models of a test set; keeps those chosen by name if they are there. */
function fillModels({ model, other, filter }, set) {
  const fill = (select, models) => {
    const chosen = select.selectedOptions[0]?.textContent;
    select.replaceChildren(...models.map(([value, text]) => h("option", { value, selected: text === chosen }, text)));
  };
  const models = set.models.map(({ name }, i) => [i, name]);
  fill(model, models);
  fill(other, [["", "none"], ...models]);
  const split = filter.querySelector("[value=split]");
  split.disabled = !other.value;
  if (split.disabled && split.selected) filter.value = "wrong";
}

function readFilters({ filter, actual, predicted, min, max, sort }) {
  const fraction = (input) => Math.round(655.35 * input.valueAsNumber); // NaN if it is empty
  return { show: filter.value, actual: actual.value, predicted: predicted.value, min: fraction(min), max: fraction(max), sort: sort.value };
}

function errorHead({ a, b }) {
  const columns = (letter, scores) => (scores ? [`${letter}: predicted (confidence)`, `${letter}: probability of the true class`] : []);
  const titles = ["Image", "File", "True class", ...columns("A", a), ...columns("B", b)];
  return h("thead", {}, h("tr", {}, titles.map((text) => h("th", { scope: "col" }, text))));
}

function errorRow({ names, labels, classes, root, thumbnails, a, b }, i) {
  const name = names[i], label = labels[i];
  const link = (child, attributes) => (root === null ? child : h("a", { href: fileLink(root, name), target: "_blank", rel: "noreferrer", ...attributes }, child));
  const cells = (scores) => {
    if (!scores) return [];
    const isRight = scores.predicted[i] === label;
    return [
      h("td", { class: isRight ? "good" : "bad" },
        h("span", { role: "img", "aria-label": isRight ? "right:" : "wrong:" }, isRight ? "✓" : "✗"),
        ` ${classes[scores.predicted[i]]} `, h("span", { class: "number" }, `(${percent(scores.confidence[i] / 65535)} %)`)),
      h("td", { class: "number" }, `${percent(scores.probability[i] / 65535)} %`),
    ];
  };
  const picture = thumbnails.has(name) ? link(h("img", { src: thumbnails.get(name), alt: "" }), { tabindex: -1, "aria-hidden": "true" }) : null;
  return h("tr", {}, h("td", {}, picture), h("td", {}, link(name)), h("td", {}, classes[label]), cells(a), cells(b));
}

/** Returns the address of a file. No name can become another address: each part is encoded. */
function fileLink(root, name) {
  const bucket = "https://storage.cloud.google.com/";
  const start = root.startsWith(bucket) ? bucket : "";
  return start + `${root.slice(start.length)}/${name}`.split("/").map(encodeURIComponent).join("/");
}

function pairRows({ labels, classes, a }, choose) {
  const rows = countPairs(labels, a.predicted, classes.length).slice(0, MAX_PAIRS).map(([label, predicted, count]) => {
    const button = h("button", { onclick: () => choose(label, predicted) }, `${classes[label]} → ${classes[predicted]}`);
    return h("tr", {}, h("td", {}, button), h("td", { class: "number" }, count));
  });
  return [h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "True class → predicted"), h("th", { scope: "col" }, "Images"))), h("tbody", {}, rows)];
}

/** Returns lines on models, thumbnails and size. */
function errorNotes(set, { thumbnails }) {
  const size = (name) => `${Math.ceil(document.getElementById(`blob-${name}`).firstChild.length / 1000)} kB`;
  const pictures = set.thumbnails ? `${thumbnails.size} thumbnails of the most confident mistakes ${size(set.thumbnails)}` : "no thumbnails";
  return [
    `In this page, the names of these images take ${size(set.files)}, the predictions of a model ${size(set.models[0].scores)}, ${pictures}.`,
    ...set.left_out.map(({ name, why }) => ` ${name} is left out: its predictions are ${why}.`),
  ];
}
