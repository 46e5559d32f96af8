/* Elements, numbers and data. Names are inserted as text nodes, never as HTML. */

/** Makes an HTML element; functions among the attributes are event listeners ("onclick"). */
function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Makes an SVG element. */
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Makes a labelled <select>; `options` are [value, text] pairs. */
function choice(label, options, value, onchange) {
  const select = h("select", { onchange: () => onchange(select.value) },
    options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  return h("label", {}, label, " ", select);
}

/** Makes a section with a heading. */
function section(id, title, ...children) {
  return h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), children);
}

const IS_NARROW = window.innerWidth < 640; // pixels

/** Returns a name whose lines may break after "_" in a narrow window. */
function breakable(name) {
  return !IS_NARROW ? name : name.split("_").flatMap((part, i) => (i ? ["_", h("wbr"), part] : [part]));
}

/** Formats a fraction as percent. */
function percent(value, digits = 1) {
  return value === null || value === undefined ? "" : (100 * value).toFixed(digits);
}

/** Formats a number with a sign; a minus sign as wide as the plus. */
function signed(value, digits) {
  return (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
}

/** Reads the page's data. */
function readData() {
  return JSON.parse(document.getElementById("data").textContent);
}

/** Unpacks a blob when it is needed; returns an ArrayBuffer. */
async function readBlob(name) {
  const packed = Uint8Array.from(atob(document.getElementById(`blob-${name}`).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/** Shows the page: the sections in order, with links to them at the top. */
function showPage(sections) {
  const shown = sections.filter(Boolean);
  const links = shown.map((part) => h("a", { href: `#${part.id}` }, part.querySelector("h2").textContent));
  document.querySelector("header").append(h("nav", { "aria-label": "Sections" }, links));
  document.getElementById("main").replaceChildren(...shown);
}
