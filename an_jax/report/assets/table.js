/* The table of models and test sets. */

const VIEWS = [
  ["value", "score"], ["digits", "all digits"], ["interval", "95 % interval"], ["bn", "difference from BN"], ["published", "difference from published"],
];

/** Renders the table with its controls; calls `onModels` with the indices of the models shown. */
function renderTable(data, onModels) {
  const state = { score: "main", view: "value", terms: "", column: null, ascending: false };
  const cells = new Map(data.cells.map((cell) => [`${cell.model} ${cell.dataset}`, cell]));
  const table = h("table", { class: "results", id: "results-table", "aria-describedby": "results-caption" });
  const caption = h("p", { class: "note", id: "results-caption" });
  const details = h("div", { id: "results-details", "aria-live": "polite" });
  const count = h("span", { class: "note", id: "results-count", "aria-live": "polite" });
  const context = { data, cells, state, details };

  const show = () => {
    const models = sortModels(context, data.models.map((_, i) => i).filter((i) => isMatch(data.models[i], state.terms)));
    count.textContent = `${models.length} of ${data.models.length} models`;
    caption.textContent = describeView(context);
    table.replaceChildren(tableHead(context, show), tableBody(context, models));
    return models;
  };
  const update = (change) => {
    Object.assign(state, change);
    show();
  };
  onModels(show());
  const scores = [["main", "top-1 (imagenet-c: mCE)"], ...Object.entries(data.metrics).map(([key, { title }]) => [key, title])];
  return [
    h("div", { class: "controls" },
      h("label", {}, "Search ", h("input", {
        type: "search", id: "results-search", placeholder: "resnet an",
        oninput: (event) => {
          state.terms = event.target.value;
          onModels(show());
        },
      })),
      choice("Score", scores, state.score, (score) => update({ score })),
      choice("Show", VIEWS, state.view, (view) => update({ view })),
      count),
    caption,
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of results" }, table),
    details,
  ];
}

/** Whether every word of the search is in the model's name, architecture or normalization. */
function isMatch(model, terms) {
  const text = `${model.name} ${model.architecture} ${model.norm}`.toLowerCase();
  return terms.toLowerCase().split(/\s+/).every((term) => text.includes(term));
}

/** Says what the cells show. */
function describeView({ state, data }) {
  const score = state.score === "main" ? "Top-1 accuracy (imagenet-c: mCE, imagenet-p: mean flip probability)" : data.metrics[state.score].title;
  const view = { value: "", digits: " as in results.json", interval: " with 95 % interval", bn: " minus that of the same model with BN", published: " minus the published one" }[state.view];
  const unit = state.view === "digits" || data.metrics[state.score]?.isFraction === false ? "" : ", in percent";
  return `${score}${view}${unit}. Select a cell for its details.`;
}

/** The score of a cell, or undefined. */
function scoreOf(cell, { data, state }) {
  return cell?.scores[state.score === "main" ? data.datasets[cell.dataset].main : state.score];
}

/** The number a cell shows: the score, or its difference to another. */
function shownValue(model, dataset, context) {
  const { data, cells, state } = context;
  const cell = cells.get(`${model} ${dataset}`);
  const value = scoreOf(cell, context);
  const key = state.score === "main" ? data.datasets[dataset].main : state.score;
  const reference = {
    bn: () => scoreOf(cells.get(`${data.models[model].bn} ${dataset}`), context),
    published: () => cell?.published[key],
  }[state.view];
  if (!reference) return value;
  const other = reference();
  return typeof value === "number" && typeof other === "number" ? value - other : undefined;
}

function columnValue(model, context) {
  const { column } = context.state;
  const row = context.data.models[model];
  return typeof column === "number" ? shownValue(model, column, context) : row[column];
}

function sortModels(context, models) {
  const { column, ascending } = context.state;
  if (column === null) return models;
  const isMissing = (value) => value === undefined || value === null;
  return [...models].sort((a, b) => {
    const [x, y] = [columnValue(a, context), columnValue(b, context)];
    if (isMissing(x) || isMissing(y)) return isMissing(x) - isMissing(y);
    const order = x < y ? -1 : Number(x > y);
    return ascending ? order : -order;
  });
}

function tableHead(context, show) {
  const { data, state } = context;
  const head = (column, text, isText) => {
    const isSorted = state.column === column;
    const sort = () => {
      Object.assign(state, { column, ascending: isSorted ? !state.ascending : Boolean(isText) });
      show();
      document.querySelector(`#results-table [data-column="${column}"]`).focus();
    };
    const arrow = isSorted ? (state.ascending ? " ▲" : " ▼") : "";
    return h("th", { scope: "col", "aria-sort": isSorted ? (state.ascending ? "ascending" : "descending") : "none" },
      h("button", { type: "button", "data-column": column, onclick: sort }, text + arrow));
  };
  return h("thead", {}, h("tr", {}, head("name", "Model", true), head("norm", "Norm", true), head("params", "Params (M)"), head("macs", "GMACs"),
    data.models.some((model) => model.rate) ? head("rate", "img/s") : [],
    data.datasets.map((dataset, i) => head(i, dataset.name + (state.score === "main" && dataset.main !== "top1" ? ` (${data.metrics[dataset.main].title})` : "")))));
}

function tableBody(context, models) {
  const { data } = context;
  const best = data.datasets.map((_, i) => bestValue(models, i, context));
  return h("tbody", {}, models.map((model) => {
    const row = data.models[model];
    return h("tr", {}, h("th", { scope: "row" }, breakable(row.name)), h("td", {}, row.norm.toUpperCase()), h("td", { title: row.params }, (row.params / 1e6).toFixed(3)),
      h("td", { title: row.macs }, row.macs === null ? "" : (row.macs / 1e9).toFixed(row.macs < 1e8 ? 4 : 2)),
      data.models.some((m) => m.rate) ? h("td", {}, row.rate ?? "") : [],
      data.datasets.map((_, i) => tableCell(model, i, best[i], context)));
  }));
}

function bestValue(models, dataset, context) {
  const values = models.map((model) => shownValue(model, dataset, context)).filter((value) => typeof value === "number");
  return isLowerBetter(dataset, context) ? Math.min(...values) : Math.max(...values);
}

function isLowerBetter(dataset, { data, state }) {
  return data.metrics[state.score === "main" ? data.datasets[dataset].main : state.score]?.lowerIsBetter;
}

function tableCell(model, dataset, best, context) {
  const { cells, state, details } = context;
  const cell = cells.get(`${model} ${dataset}`);
  const value = shownValue(model, dataset, context);
  if (value === undefined || value === null) return h("td", {});
  const isDifference = state.view === "bn" || state.view === "published";
  const isBetter = isLowerBetter(dataset, context) ? value < 0 : value > 0;
  const kind = isDifference && value !== 0 ? (isBetter ? "good" : "bad") : "";
  const partial = cell.n === cell.expected ? "" : ` n=${cell.n}`;
  const select = () => details.replaceChildren(cellDetails(cell, context));
  return h("td", { class: `${kind} ${value === best ? "best" : ""}` },
    h("button", { type: "button", title: String(value), onclick: select }, cellText(cell, value, context) + partial));
}

function cellText(cell, value, { data, state }) {
  const key = state.score === "main" ? data.datasets[cell.dataset].main : state.score;
  if (state.view === "digits") return String(value);
  const [factor, digits] = data.metrics[key].isFraction ? [100, 2] : [1, 3];
  if (state.view === "bn" || state.view === "published") return signed(factor * value, digits);
  const interval = cell.intervals[key];
  if (state.view === "interval" && interval) return `${percent(value, 2)} [${percent(interval[0], 2)}, ${percent(interval[1], 2)}]`;
  return (factor * value).toFixed(digits);
}

/** All that results.json says about a cell. */
function cellDetails(cell, { data }) {
  const rows = [["images", `${cell.n} of ${cell.expected}`]];
  for (const [key, value] of Object.entries(cell.scores))
    if (typeof value !== "object") rows.push([data.metrics[key]?.title ?? key, String(value)]);
  for (const [key, [low, high]] of Object.entries(cell.intervals)) rows.push([`95 % interval of ${data.metrics[key].title}`, `${low} to ${high}`]);
  for (const [key, value] of Object.entries(cell.published)) rows.push([`published ${data.metrics[key].title}`, String(value)]);
  rows.push(...Object.entries(cell.settings).map(([key, value]) => [key.replaceAll("_", " "), String(value)]));
  return h("div", { class: "panel" }, h("h3", {}, `${data.models[cell.model].name} on ${data.datasets[cell.dataset].name}`),
    h("dl", {}, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
}
