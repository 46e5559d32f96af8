/* Charts as SVG, with a legend that switches series, a readout, and the data as a table. */

// A smaller drawing keeps its text legible in a narrow window.
const SIZE = { width: IS_NARROW ? 400 : 640, height: IS_NARROW ? 330 : 380, left: 62, right: 14, top: 12 };

/**
 * Draws a chart.
 * @param options title; x and y: {label, type: "linear" | "log" | "band", min, max}; series:
 *   [{name, color, mark: "line" | "point", shape: "circle" | "triangle" | "square", dashed,
 *   points: [{x, y, label}]}]; diagonal: draw y = x; labels: write the points' labels.
 * @return a <figure>
 */
function chart(options) {
  const series = options.series.map((s, i) => ({ ...s, color: s.color ?? seriesColor(i, options.series.length), shown: !s.hidden }));
  const plot = h("div", { class: "plot" });
  const readout = h("p", { class: "readout", "aria-live": "polite" });
  const draw = () => plot.replaceChildren(drawPlot(options, series.filter((s) => s.shown && s.points.length), readout));
  const legend = h("div", { class: "legend" }, series.map((s) => {
    const button = h("button", {
      type: "button", "aria-pressed": String(s.shown),
      onclick: () => {
        s.shown = !s.shown;
        button.setAttribute("aria-pressed", String(s.shown));
        draw();
      },
    }, svg("svg", { width: 14, height: 12, "aria-hidden": "true" }, mark(s, 7, 6)), s.name);
    return button;
  }));
  draw();
  return h("figure", { class: "chart" }, h("figcaption", {}, options.title), legend, plot, readout, dataTable(options, series));
}

/** A color for one of `count` series: ten distinct ones, or steps around the color circle. */
function seriesColor(index, count) {
  return count <= 10 ? `var(--c${index})` : `hsl(${Math.round((360 * index) / count)} 60% 50%)`;
}

function drawPlot(options, series, readout) {
  const points = series.flatMap((s) => s.points.filter((p) => isDrawable(p, options)).map((p) => ({ ...p, series: s })));
  const x = scale(options.x, points.map((p) => p.x), SIZE.left, SIZE.width - SIZE.right);
  const isCrowded = options.x.type === "band" && !isRoomy(x.ticks);
  const bottom = SIZE.height - (isCrowded ? 110 : 46);
  const y = scale(options.y, points.map((p) => p.y), bottom, SIZE.top);
  const picture = svg("svg", { viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img", tabindex: 0, "aria-label": `${options.title}. Arrow keys step through ${points.length} points.` },
    axes(options, x, y, bottom, isCrowded));
  if (options.diagonal) {
    const [low, high] = [Math.max(x.min, y.min), Math.min(x.max, y.max)];
    if (low < high) picture.append(svg("line", { class: "diagonal", x1: x(low), y1: y(low), x2: x(high), y2: y(high) }));
  }
  for (const s of series) {
    const drawn = s.points.filter((p) => isDrawable(p, options));
    if (s.mark === "line") {
      const path = drawn.map((p, i) => `${i ? "L" : "M"}${x(p.x).toFixed(1)},${y(p.y).toFixed(1)}`).join("");
      picture.append(svg("path", { class: "line", d: path, stroke: s.color, "stroke-dasharray": s.dashed ? "4 3" : null }));
    }
    if (s.mark !== "line" || drawn.length <= 30) picture.append(...drawn.map((p) => mark(s, x(p.x), y(p.y))));
  }
  if (options.labels) picture.append(...pointLabels(points, x, y));
  addReadout(picture, points, x, y, options, readout);
  return picture;
}

/** Whether a point has a place: numbers, and positive ones on a logarithmic axis. */
function isDrawable(point, { x, y }) {
  return [[point.x, x], [point.y, y]].every(([value, axis]) =>
    axis.type === "band" || (Number.isFinite(value) && (axis.type !== "log" || value > 0)));
}

function mark(s, x, y) {
  if (s.mark === "line" && !s.shape) return svg("circle", { cx: x, cy: y, r: 2.5, fill: s.color });
  if (s.shape === "triangle") return svg("path", { d: `M${x},${y - 5}l5,9h-10z`, fill: s.color });
  if (s.shape === "square") return svg("rect", { x: x - 4, y: y - 4, width: 8, height: 8, fill: s.color });
  return svg("circle", { cx: x, cy: y, r: 4.5, fill: s.color });
}

/** Returns a function from values to pixels, with `min`, `max` and `ticks`. */
function scale(axis, values, from, to) {
  if (axis.type === "band") {
    const names = [...new Set(values)];
    const place = (name) => from + ((to - from) * (names.indexOf(name) + 0.5)) / names.length;
    return Object.assign(place, { min: 0, max: 0, ticks: names });
  }
  const isLog = axis.type === "log";
  let min = axis.min ?? values.reduce((a, b) => Math.min(a, b), Infinity);
  let max = axis.max ?? values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!(min <= max)) [min, max] = isLog ? [1, 10] : [0, 1];
  if (min === max) [min, max] = isLog ? [min / 1.5, max * 1.5] : [min - (Math.abs(min) * 0.05 || 0.5), max + (Math.abs(max) * 0.05 || 0.5)];
  const [a, b] = isLog ? [Math.log10(min), Math.log10(max)] : [min, max];
  const margin = (b - a) * 0.04;
  const low = axis.min === undefined ? a - margin : a;
  const high = axis.max === undefined ? b + margin : b;
  const place = (value) => from + ((to - from) * ((isLog ? Math.log10(value) : value) - low)) / (high - low);
  const bounds = isLog ? { min: 10 ** low, max: 10 ** high } : { min: low, max: high };
  return Object.assign(place, bounds, { ticks: isLog ? logTicks(bounds) : linearTicks(bounds) });
}

function linearTicks({ min, max }) {
  const rough = (max - min) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const ticks = [];
  for (let i = Math.ceil(min / step - 1e-9); i * step <= max + step * 1e-9; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks({ min, max }) {
  const ticks = [];
  const decades = Math.log10(max / min);
  if (decades < 0.5) return linearTicks({ min, max });
  const factors = decades > 4 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(min)); power <= Math.ceil(Math.log10(max)); power++)
    for (const factor of factors) {
      const tick = Number((factor * 10 ** power).toPrecision(12));
      if (tick >= min && tick <= max) ticks.push(tick);
    }
  return ticks;
}

function tickText(value) {
  if (typeof value !== "number") return value;
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(6))}M`;
  if (size !== 0 && size < 1e-3) return value.toExponential().replaceAll("-", "−");
  return String(value).replace("-", "−");
}

function axes(options, x, y, bottom, isCrowded) {
  const group = svg("g", { class: "axes" });
  for (const tick of y.ticks) {
    group.append(svg("line", { class: "grid", x1: SIZE.left, x2: SIZE.width - SIZE.right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: SIZE.left - 6, y: y(tick) + 4, "text-anchor": "end" }, tickText(tick)));
  }
  for (const tick of x.ticks) {
    const turn = isCrowded ? { transform: `rotate(-35 ${x(tick)} ${bottom + 14})`, "text-anchor": "end" } : { "text-anchor": "middle" };
    group.append(svg("line", { class: "tick", x1: x(tick), x2: x(tick), y1: bottom, y2: bottom + 4 }),
      svg("text", { x: x(tick), y: bottom + 16, ...turn }, shorten(tickText(tick), isCrowded ? 18 : 16)));
  }
  group.append(svg("line", { class: "axis", x1: SIZE.left, x2: SIZE.width - SIZE.right, y1: bottom, y2: bottom }),
    svg("text", { class: "title", x: (SIZE.left + SIZE.width - SIZE.right) / 2, y: SIZE.height - 6, "text-anchor": "middle" }, options.x.label),
    svg("text", { class: "title", transform: `translate(14 ${(SIZE.top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, options.y.label));
  return group;
}

/** Whether names fit side by side on the horizontal axis. */
function isRoomy(names) {
  const letters = names.map((name) => Math.min(String(name).length, 16) + 2);
  return 7 * names.length * Math.max(...letters, 0) < SIZE.width - SIZE.left - SIZE.right;
}

function shorten(text, length) {
  const letters = [...String(text)];
  return letters.length <= length ? String(text) : letters.slice(0, length - 1).join("") + "…";
}

/** Labels of the points that have room, right of the point or left of it. */
function pointLabels(points, x, y) {
  const boxes = points.map((p) => [x(p.x) - 6, y(p.y) - 6, x(p.x) + 6, y(p.y) + 6]);
  const labels = [];
  for (const p of points) {
    const text = shorten(p.label, 24);
    const width = 5.6 * [...text].length;
    for (const anchor of ["start", "end"]) {
      const left = anchor === "start" ? x(p.x) + 8 : x(p.x) - 8 - width;
      const box = [left, y(p.y) - 6, left + width, y(p.y) + 6];
      const isFree = box[0] > SIZE.left && box[2] < SIZE.width && !boxes.some((b) => b[0] < box[2] && box[0] < b[2] && b[1] < box[3] && box[1] < b[3]);
      if (!isFree) continue;
      boxes.push(box);
      labels.push(svg("text", { class: "label", x: anchor === "start" ? left : left + width, y: y(p.y) + 4, "text-anchor": anchor }, text));
      break;
    }
  }
  return labels;
}

/** Shows the point next to the pointer, or that the arrow keys have reached. */
function addReadout(picture, points, x, y, options, readout) {
  if (!points.length) return;
  const ring = svg("circle", { class: "ring", r: 7, visibility: "hidden" });
  picture.append(ring);
  let current = -1;
  const show = (index) => {
    current = index;
    const p = points[index];
    fill(ring, { cx: x(p.x), cy: y(p.y), visibility: "visible" }, []);
    const name = p.label && p.label !== p.series.name ? `${p.series.name}, ${p.label}` : p.series.name;
    readout.textContent = `${name}: ${options.x.label} ${readNumber(p.x)}, ${options.y.label} ${readNumber(p.y)}`;
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const [px, py] = [((event.clientX - box.left) * SIZE.width) / box.width, ((event.clientY - box.top) * SIZE.height) / box.height];
    const distances = points.map((p) => (x(p.x) - px) ** 2 + (y(p.y) - py) ** 2);
    show(distances.reduce((best, d, i) => (d < distances[best] ? i : best), 0));
  });
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show((current + step + points.length) % points.length);
  });
}

function readNumber(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(6))) : value;
}

/** The chart's data as a table, made when it is opened. */
function dataTable(options, series) {
  const details = h("details", {
    ontoggle: () => {
      if (!details.open || details.children.length > 1) return;
      const rows = series.flatMap((s) => s.points.map((p) => h("tr", {}, [s.name, p.label ?? "", p.x, p.y].map((value) => h("td", {}, String(value ?? ""))))));
      details.append(h("div", { class: "scroll" }, h("table", {},
        h("thead", {}, h("tr", {}, ["Series", "Label", options.x.label, options.y.label].map((head) => h("th", { scope: "col" }, head)))),
        h("tbody", {}, rows))));
    },
  }, h("summary", {}, "Data"));
  return details;
}
