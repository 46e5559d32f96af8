/* What AN attends to: the mixture weights of a model's AN layers on a test set. */

const MAX_LAYER_NAMES = 20; // on an axis: more layers are numbered

/**
 * Shows the analyses that python -m an_jax.attention has written.
 * @param analyses the contents of its files (docs/attention.md)
 * @return a <section>, or null if no model has AN
 */
function renderAttention(analyses) {
  const attentive = analyses.filter((a) => attentiveLayers(a).length);
  if (!attentive.length) return null;
  const options = (key, list) => [...new Set(list.map((a) => a[key]))].map((name) => [name, name]);
  const sets = h("span");
  const body = h("div");
  let dataset = attentive[0].dataset;
  const showModel = (model) => {
    const ofModel = attentive.filter((a) => a.model === model);
    const showSet = (name) => {
      dataset = name;
      const shown = ofModel.find((a) => a.dataset === name);
      body.replaceChildren(...attentionParts(shown, analyses.filter((other) => isCounterpart(other, shown))));
    };
    if (!ofModel.some((a) => a.dataset === dataset)) dataset = ofModel[0].dataset;
    sets.replaceChildren(choice("Test set", options("dataset", ofModel), dataset, showSet));
    showSet(dataset);
  };
  showModel(attentive[0].model);
  return section("attention", "What AN attends to",
    h("p", { class: "note" }, "Attentive Normalization replaces the affine transformation of Batch Normalization by a mixture of K affine transformations. Each image has its own mixture weights λ, from 0 to 1."),
    h("div", { class: "controls", id: "attention-controls" }, choice("Model", options("model", attentive), attentive[0].model, showModel), sets),
    body);
}

function attentiveLayers(analysis) {
  return analysis.layers.filter((layer) => layer.norm === "AN");
}

/** Whether two analyses are of the same test set and have norms at the same places. */
function isCounterpart(other, analysis) {
  const places = (a) => a.layers.map((layer) => layer.name).join("\n");
  return other.dataset === analysis.dataset && !attentiveLayers(other).length && places(other) === places(analysis);
}

function attentionParts(analysis, counterparts) {
  const layers = attentiveLayers(analysis);
  return [
    analysis.is_current === false ? h("p", { class: "bad" }, "This analysis is of other weights than the results: run python -m an_jax.attention again.") : [],
    h("h3", {}, `Mixture weights of ${analysis.model} on ${analysis.dataset} (${analysis.num_images} images)`),
    ...weightsTable(layers),
    h("div", { class: "charts" }, attentionCharts(analysis.model, layers, counterparts)),
    ...imagesByComponent(analysis, layers),
  ];
}

/** A heat map as a table: a row for each layer, a cell for each component. */
function weightsTable(layers) {
  const width = Math.max(...layers.map((layer) => layer.components.length));
  const heads = ["Layer", "In use", "Per image", "By class"].map((head) => h("th", { scope: "col" }, head));
  for (let k = 0; k < width; k++) heads.push(h("th", { scope: "col", "aria-label": `Component ${k}` }, String(k)));
  const cell = (c) => h("td", { class: "heat", style: `--heat: ${Math.round(60 * c.mean)}%` }, c.mean.toFixed(2), h("small", {}, ` ±${c.std.toFixed(2)}`));
  const rows = layers.map((layer) => h("tr", {},
    h("th", { scope: "row" }, layer.name),
    [layer.in_use.toFixed(1), layer.in_use_per_image.toFixed(1), shareText(layer.epsilon_squared)].map((text) => h("td", {}, text)),
    layer.components.map(cell)));
  return [
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Mixture weights" }, h("table", { class: "results", id: "attention-weights" },
      h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows))),
    h("p", { class: "note" }, "Mean λ of each component over the images, ± its standard deviation. In use: effective number of components, exp(entropy), of the mean λ; per image: of each image's own λ, averaged. By class: share of the variance of λ that the class explains (epsilon squared)."),
  ];
}

function shareText(share) {
  return share === null ? "" : (Math.round(100 * share) / 100 || 0).toFixed(2); // not -0.00
}

function attentionCharts(model, layers, counterparts) {
  const isNamed = layers.length <= MAX_LAYER_NAMES;
  const x = { label: isNamed ? "AN layer" : "AN layer, from input to output", type: isNamed ? "band" : "linear" };
  const points = (list, value) => list.map((layer, i) => ({ x: isNamed ? layer.name : i + 1, y: value(layer), label: layer.name }));
  const line = (name, list, value, style) => ({ name, mark: "line", points: points(list, value), ...style });
  const affine = (field) => [
    line(model, layers, (l) => l[field].mean, { color: "var(--an)", shape: "triangle" }),
    ...[["−", -1], ["+", 1]].map(([sign, factor]) =>
      line(`${model} ${sign} std over images`, layers, (l) => l[field].mean + factor * l[field].std_over_images, { color: "var(--an)", dashed: true })),
    ...counterparts.map((other, i) => {
      const byName = new Map(other.layers.map((layer) => [layer.name, layer]));
      return line(other.model, layers.map((layer) => byName.get(layer.name)), (l) => l[field].mean, { color: i ? undefined : "var(--bn)" });
    }),
  ];
  return [
    chart({ title: "Components in use", x, y: { label: "effective number", type: "linear", min: 0 }, series: [
      line("of the mean weights", layers, (l) => l.in_use),
      line("of each image's weights", layers, (l) => l.in_use_per_image),
      line("K", layers, (l) => l.components.length, { dashed: true }),
    ] }),
    chart({ title: "Variance of λ explained by class", x, y: { label: "share of variance", type: "linear" }, series: [
      line("epsilon squared", layers, (l) => l.epsilon_squared),
      line("eta squared (biased upwards)", layers, (l) => l.eta_squared, { dashed: true }),
    ] }),
    chart({ title: "Effective scale", x, y: { label: "mean over channels", type: "linear" }, series: affine("scale") }),
    chart({ title: "Effective shift", x, y: { label: "mean over channels", type: "linear" }, series: affine("shift") }),
  ];
}

/** The images that use each component of a layer most. */
function imagesByComponent(analysis, layers) {
  const title = h("h3", {}, "Images that use a component most");
  if (analysis.images_left_out) return [title, h("p", { class: "note" }, `The images were left out to keep this page small. They are in attention/${analysis.model}/${analysis.dataset}.json.`)];
  const images = new Map(analysis.images.map((image) => [image.position, image]));
  const list = h("div", { class: "components", id: "attention-images" });
  const show = (name) => list.replaceChildren(...layers.find((layer) => layer.name === name).components.map((component, k) =>
    h("figure", {}, h("figcaption", {}, `Component ${k}: mean λ ${component.mean.toFixed(2)}`),
      h("div", { class: "thumbnails" }, component.images.map((user) => thumbnail(images.get(user.position), user.lambda))))));
  const last = layers.at(-1).name;
  show(last);
  return [title, h("div", { class: "controls" }, choice("Layer", layers.map((layer) => [layer.name, layer.name]), last, show)), list];
}

function thumbnail(image, lambda) {
  return h("figure", { title: image.filename },
    h("img", { src: image.thumbnail, alt: image.filename, width: 64, height: 64 }),
    h("small", {}, `${shorten(image.class, 12)}, λ ${lambda.toFixed(2)}`));
}
