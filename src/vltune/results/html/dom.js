// Elements, numbers and what stands for a method.  Text is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}
const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function choose(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => html("option", { value }, text)));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

const fixed = (value, digits) =>
  value
    .toFixed(digits)
    .replace(/^-(?=0(\.0*)?$)/, "")
    .replace("-", "−");
const short = (value) =>
  value.toLocaleString("en", { maximumSignificantDigits: 4, useGrouping: Math.abs(value) >= 1e4 }).replace("-", "−");
const count = (value) => value.toLocaleString("en");

function estimate(column, cell) {
  const deviation = cell.std === undefined ? "" : ` ± ${fixed(cell.std, column.digits)}`;
  return `${fixed(cell.mean, column.digits)}${deviation} (${cell.n})`;
}

// Colour by family, marker and dashes by place among the rows of a colour: of twelve each, no two look the same.
const MARKERS = [
  "M0-5A5 5 0 1 0 0 5 5 5 0 1 0 0-5Z",
  "M-4.5-4.5H4.5V4.5H-4.5Z",
  "M0-5.8 5.4 4.2H-5.4Z",
  "M0-6 6 0 0 6-6 0Z",
  "M0 5.8-5.4-4.2H5.4Z",
  "M-1.9-5.5H1.9V-1.9H5.5V1.9H1.9V5.5H-1.9V1.9H-5.5V-1.9H-1.9Z",
  "M0-6 1.7-2 6-1.6 2.7 1.2 3.7 5.4 0 3.2-3.7 5.4-2.7 1.2-6-1.6-1.7-2Z",
  "M-2.8-5.2H2.8L5.6 0 2.8 5.2H-2.8L-5.6 0Z",
  "M-5-5 0-2.2 5-5 2.2 0 5 5 0 2.2-5 5-2.2 0Z",
  "M0-6 2.6 0 0 6-2.6 0Z",
  "M-6-2.4H6V2.4H-6Z",
  "M-5-5H5L-5 5H5Z",
];
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 3", "6 2 2 2 2 2", "3 5", "14 3 2 3", "5 5", "1 5"];
const colourOf = (row) => (row.colour === null ? "none" : `c${row.colour}`);
const markerOf = (row) => MARKERS[row.shape % MARKERS.length];
const dashOf = (row) => DASHES[row.shape % DASHES.length];
const brief = (label) => (label.length > 32 ? `${label.slice(0, 30)}…` : label); // in a chart; tip and legend have all of it
const swatch = (table, number) =>
  html(
    "span",
    { class: `mark ${colourOf(table.rows[number])}`, "aria-hidden": "true" },
    svg("svg", { viewBox: "-7 -7 14 14" }, svg("path", { d: markerOf(table.rows[number]) })),
  );
const lineSwatch = (table, number) =>
  html(
    "span",
    { class: `mark wide ${colourOf(table.rows[number])}`, "aria-hidden": "true" },
    svg(
      "svg",
      { viewBox: "0 0 26 14" },
      svg("line", { x1: 0, x2: 26, y1: 7, y2: 7, "stroke-dasharray": dashOf(table.rows[number]) }),
    ),
  );
