/* Training curves of one or several runs, by epoch or by step. */

const AXES = [["epoch", "epoch"], ["step", "step"]];
const SMOOTHING = [["1", "none"], ["5", "mean of 5 points"], ["25", "mean of 25 points"]];
const ACCURACIES = {
  real_top1: "Top-1 accuracy with ReaL's labels",
  plain_val_top1: "Validation top-1 without weight averaging",
  plain_real_top1: "Top-1 with ReaL's labels, without weight averaging",
};

/** The charts: title; y: label, type and factor; the fields that they show, with the series' suffixes. */
function listCharts(runs) {
  const fields = new Set(runs.flatMap((run) => [...Object.keys(run.epochs), ...Object.keys(run.steps)]));
  const others = [...fields].filter((name) => Object.hasOwn(ACCURACIES, name) || name.endsWith("/top1"));
  const top1 = { label: "top-1 (%)", factor: 100 };
  return [
    { title: "Training loss", y: { label: "cross entropy", type: "log" }, fields: { loss: "" } },
    { title: "Top-1 accuracy", y: top1, fields: { val_top1: " (val)", train_top1: " (training)" } },
    ...others.map((name) => ({ title: ACCURACIES[name] ?? `Top-1 accuracy on ${name.slice(0, -5)}`, y: top1, fields: { [name]: "" } })),
    { title: "Learning rate", y: { label: "learning rate" }, fields: { learning_rate: "" } },
    { title: "Gradient norm", y: { label: "L2 norm", type: "log" }, fields: { gradient_norm: "" } },
    { title: "Update norm", y: { label: "L2 norm", type: "log" }, fields: { update_norm: "" } },
    { title: "Wait for input", y: { label: "share of the time (%)", factor: 100, min: 0 }, fields: { input_wait: "" } },
    { title: "Throughput", y: { label: "images per second", min: 0 }, fields: { images_per_second: "" } },
  ].filter((item) => Object.keys(item.fields).some((name) => fields.has(name)));
}

/** Draws one of the charts; `state` has the x axis, the number of points to average, and the hidden runs. */
function drawCurves(item, runs, state) {
  const { factor = 1, type = "linear", ...y } = item.y;
  const series = runs.flatMap((run, i) => Object.entries(item.fields).map(([field, suffix], k) => ({
    name: run.name + suffix, mark: "line", dashed: k > 0, color: seriesColor(i, runs.length),
    points: state.hidden.has(run) ? [] : pointsOf(run, field, state, factor),
  }))).filter((s) => s.points.length);
  return chart({ title: item.title, x: { label: state.axis, type: "linear" }, y: { ...y, type }, series });
}

/** Points by step where the run has the field by step, otherwise one for each epoch. */
function pointsOf(run, field, { axis, window }, factor) {
  const table = axis === "step" && run.steps[field] ? run.steps : run.epochs;
  return smooth(table[field] ?? [], window).map((y, i) => ({ x: table[axis][i], y: y === null ? null : factor * y }));
}

/** Replaces each value by the mean of the last `count` known ones up to it. */
function smooth(values, count) {
  return values.map((value, i) => {
    const known = values.slice(Math.max(0, i - count + 1), i + 1).filter((v) => v !== null);
    return value === null ? null : known.reduce((a, b) => a + b, 0) / known.length;
  });
}

function renderCurves({ runs }) {
  const isLong = runs.some((run) => run.epochs.epoch.length > 1);
  const state = { axis: isLong ? "epoch" : "step", window: 1, hidden: new Set() };
  const charts = h("div", { class: "charts" });
  const draw = () => charts.replaceChildren(...listCharts(runs).map((item) => drawCurves(item, runs, state)));
  draw();
  const averaged = runs.filter((run) => run.lines_per_point > 1);
  return section("curves", "Curves",
    h("div", { class: "controls" },
      choice("Horizontal axis", AXES, state.axis, (value) => { state.axis = value; draw(); }),
      choice("Smoothing", SMOOTHING, "1", (value) => { state.window = Number(value); draw(); }),
      runs.length > 1 ? runButtons(runs, state, draw) : null),
    averaged.map((run) => h("p", { class: "note" },
      `${run.name}: by step, each point is the mean of ${run.lines_per_point} lines of the log.`)),
    charts);
}

/** Makes buttons that show and hide a run in every chart. */
function runButtons(runs, state, draw) {
  return h("div", { class: "legend", role: "group", "aria-label": "Runs in all charts" }, "Runs", runs.map((run) => {
    const button = h("button", {
      type: "button", "aria-pressed": "true",
      onclick: () => {
        if (!state.hidden.delete(run)) state.hidden.add(run);
        button.setAttribute("aria-pressed", String(!state.hidden.has(run)));
        draw();
      },
    }, run.name);
    return button;
  }));
}

function renderRuns({ runs, config }) {
  const best = Math.max(...runs.map((run) => run.best_val_top1));
  const row = (name, cells) => h("tr", {}, h("th", { scope: "row" }, breakable(name)), cells);
  const cells = (values) => values.map((value) => h("td", {}, value ?? "–"));
  return section("runs", "Runs", h("div", { class: "scroll" }, h("table", { class: "results" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Run"), runs.map((run) => h("th", { scope: "col" }, run.name)))),
    h("tbody", {},
      row("Best validation top-1 (%)", runs.map((run) => h("td", { class: run.best_val_top1 === best ? "best" : null }, percent(run.best_val_top1, 2)))),
      row("Best epoch", cells(runs.map((run) => run.best_epoch))),
      row("Finished epochs", cells(runs.map((run) => `${run.epochs.epoch.at(-1)} of ${run.num_epochs ?? "?"}`))),
      Object.entries(config).map(([name, values]) => row(name, cells(values)))))));
}

const data = readData();
showPage([renderRuns(data), renderCurves(data)]);
