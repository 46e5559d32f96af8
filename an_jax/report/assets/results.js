/* Charts of the results. */

const NORMS = { bn: ["BN", "circle"], an: ["AN", "triangle"], se: ["SE", "square"] };
const MANY_LINES = 8; // further lines are hidden until they are switched on

/** Renders the charts that the models, a list of indices, have data for. */
function renderCharts(data, models) {
  const context = { data, models, cells: data.cells.filter((cell) => models.includes(cell.model)) };
  return [costChart, gainChart, shiftChart, reliabilityChart, corruptionChart].map((render) => render(context)).filter(Boolean);
}

/** A chart below choices that change it: `choices` are [label, options], `draw` gets the values. */
function choosable(choices, draw) {
  const values = choices.map(([, options]) => options[0]?.[0]);
  const place = h("div", {}, draw(...values));
  const controls = choices.map(([label, options], i) => choice(label, options, values[i], (value) => {
    values[i] = value;
    place.replaceChildren(draw(...values));
  }));
  return h("div", {}, h("div", { class: "controls" }, controls), place);
}

function datasetOptions({ data, cells }, hasData) {
  return data.datasets.map((dataset, i) => [String(i), dataset.name]).filter(([i]) => cells.some((cell) => cell.dataset === Number(i) && hasData(cell)));
}

function costChart(context) {
  const { data, cells } = context;
  const costs = [["params", "parameters (millions)", 1e6], ["macs", "GMACs", 1e9], ["rate", "images per second", 1]].filter(([key]) => data.models.some((m) => m[key]));
  const datasets = datasetOptions(context, (cell) => "top1" in cell.scores);
  if (!datasets.length) return null;
  return choosable([["Test set", datasets], ["Cost", costs]], (dataset, cost) => {
    const [key, label, unit] = costs.find(([name]) => name === cost);
    const chosen = cells.filter((cell) => cell.dataset === Number(dataset) && "top1" in cell.scores && data.models[cell.model][key]);
    const series = Object.entries(NORMS).map(([norm, [name, shape]]) => ({
      name, shape, mark: "point", color: `var(--${norm})`,
      points: chosen.filter((cell) => data.models[cell.model].norm === norm)
        .map((cell) => ({ x: data.models[cell.model][key] / unit, y: 100 * cell.scores.top1, label: data.models[cell.model].name })),
    })).filter((s) => s.points.length);
    return chart({ title: `Accuracy against ${label}`, x: { label, type: "log" }, y: { label: `top-1 accuracy on ${data.datasets[dataset].name} (%)`, type: "linear" }, series, labels: true });
  });
}

function gainChart({ data, models, cells }) {
  const top1 = new Map(data.cells.map((cell) => [`${cell.model} ${cell.dataset}`, cell.scores.top1]));
  const series = models.filter((model) => data.models[model].bn !== null).map((model, i) => ({
    name: data.models[model].name, mark: "point", hidden: i >= MANY_LINES,
    points: cells.filter((cell) => cell.model === model)
      .map((cell) => ({ x: data.datasets[cell.dataset].name, y: 100 * (cell.scores.top1 - top1.get(`${data.models[model].bn} ${cell.dataset}`)) }))
      .filter((point) => Number.isFinite(point.y)),
  })).filter((s) => s.points.length);
  if (!series.length) return null;
  return chart({ title: "AN minus BN", x: { label: "test set", type: "band" }, y: { label: "difference of top-1 accuracy (points)", type: "linear" }, series });
}

function shiftChart({ data, cells }) {
  const top1 = new Map(cells.map((cell) => [`${cell.model} ${cell.dataset}`, cell.scores.top1]));
  const series = data.datasets.map((dataset, i) => ({
    name: dataset.name, mark: "point",
    points: dataset.clean === null ? [] : cells.filter((cell) => cell.dataset === i)
      .map((cell) => ({ x: 100 * top1.get(`${cell.model} ${dataset.clean}`), y: 100 * cell.scores.top1, label: data.models[cell.model].name }))
      .filter((point) => Number.isFinite(point.x) && Number.isFinite(point.y)),
  })).filter((s) => s.points.length);
  if (!series.length) return null;
  return chart({ title: "Shifted against clean", x: { label: "top-1 accuracy on the clean set (%)", type: "linear" }, y: { label: "top-1 accuracy on the shifted set (%)", type: "linear" }, series, diagonal: true });
}

function reliabilityChart(context) {
  const { data, cells } = context;
  const datasets = datasetOptions(context, (cell) => cell.scores.reliability);
  if (!datasets.length) return null;
  return choosable([["Test set", datasets]], (dataset) => chart({
    title: `Calibration on ${data.datasets[Number(dataset)].name}`, diagonal: true,
    x: { label: "mean confidence (%)", type: "linear", min: 0, max: 100 }, y: { label: "top-1 accuracy (%)", type: "linear", min: 0, max: 100 },
    series: cells.filter((cell) => cell.dataset === Number(dataset) && cell.scores.reliability).map((cell, i) => {
      const { n, confidence, accuracy } = cell.scores.reliability;
      return { name: data.models[cell.model].name, mark: "line", hidden: i >= MANY_LINES, points: n.map((images, bin) => ({ x: 100 * confidence[bin], y: 100 * accuracy[bin], label: `${images} images` })) };
    }),
  }));
}

function corruptionChart({ data, cells }) {
  const corrupted = cells.filter((cell) => cell.scores.errors);
  if (!corrupted.length) return null;
  const names = [...new Set(corrupted.flatMap((cell) => Object.keys(cell.scores.errors)))];
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return choosable([["Corruption", [["", "all, mean of severities"], ...names.map((name) => [name, name])]]], (corruption) => chart({
    title: corruption ? `ImageNet-C: ${corruption}` : "ImageNet-C",
    x: corruption ? { label: "severity", type: "linear" } : { label: "corruption", type: "band" }, y: { label: "top-1 error (%)", type: "linear" },
    series: corrupted.map((cell, i) => ({
      name: data.models[cell.model].name, mark: "line", hidden: i >= MANY_LINES,
      points: corruption ? (cell.scores.errors[corruption] ?? []).map((error, j) => ({ x: j + 1, y: 100 * error }))
        : Object.entries(cell.scores.errors).map(([name, errors]) => ({ x: name, y: 100 * mean(errors) })),
    })),
  }));
}
