/* Charts as SVG, with a legend that switches series, a readout, and the data as a table. */

/**
 * Draws a chart.
 * @param options title; x and y: {label, type: "linear" | "log" | "band", min, max}; series:
 *   [{name, color, mark: "line" | "point", shape: "circle" | "triangle" | "square", dashed,
 *   hidden: not shown at first, points: [{x, y, label}]}]; diagonal: draw y = x; labels: write the points' labels.
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

/** Whether a point can be drawn: its values are finite, and positive on a logarithmic axis. */
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
