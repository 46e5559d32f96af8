/* The axes of charts: scales, ticks and their texts. */

// A smaller drawing keeps its text legible in a narrow window.
const SIZE = { width: IS_NARROW ? 400 : 640, height: IS_NARROW ? 330 : 380, left: 62, right: 14, top: 12 };

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
