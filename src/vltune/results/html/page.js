// What is chosen, and drawing it.

let shown = 0;
const current = () => data.tables[shown];
const columnOf = (key) => current().columns.find((column) => column.key === key);
const number = (id) => Number(byId(id).value);

function drawTrade() {
  const columns = ["trade-x", "trade-y"].map((id) => columnOf(byId(id).value));
  const points = scatterPoints(current(), columns);
  const box = byId("trade-log");
  box.disabled = !points.some((point) => point.x > 0);
  drawScatter(byId("trade-chart"), current(), columns, points, box.checked && !box.disabled);
  const rows = [...new Set(points.map((point) => point.number))];
  const items = rows.map((row) => html("li", {}, swatch(current(), row), current().rows[row].label));
  if (points.some((point) => point.published)) items.push(html("li", {}, "hollow: published"));
  byId("trade-legend").replaceChildren(...items);
}

// As in the figures: logarithmic where costs span decades.
function chooseScale() {
  const column = columnOf(byId("trade-x").value);
  const cells = current().rows.map((row) => row.cells[column.key]);
  const values = cells.map((cell) => cell.mean ?? cell.published).filter((value) => value > 0);
  byId("trade-log").checked = !column.score && Math.max(...values) > 10 * Math.min(...values);
}

function redrawCurves() {
  const [experiment, metric] = ["curves-experiment", "curves-metric"].map((id) => byId(id).value);
  drawCurves(byId("curves-chart"), current(), experiment, metric, number("curves-smoothing"));
}

function chooseCurves() {
  const experiment = byId("curves-experiment").value;
  const metrics = Object.keys(current().curves[experiment]?.metrics ?? {});
  choose(
    byId("curves-metric"),
    metrics.map((name) => [name, name]),
    byId("curves-metric").value || "train/loss",
  );
  curveLegend(byId("curves-legend"), byId("curves-chart"), current(), experiment, redrawCurves);
  redrawCurves();
}

function choosePart() {
  const part = current().disagreement[number("differ-part")];
  const rows = part ? comparedRows(current(), part).map((row) => [String(row), current().rows[row].label]) : [];
  const methods = rows.filter(([row]) => !current().rows[row].control);
  const isThere = (row) => rows.some(([value]) => value === row);
  const [a, b] = [byId("differ-a").value, byId("differ-b").value];
  const one = isThere(a) ? a : rows[0]?.[0];
  const others = [...rows, ...methods].map(([row]) => row).filter((row) => row !== one);
  choose(byId("differ-a"), rows, one);
  choose(byId("differ-b"), rows, isThere(b) && b !== one ? b : others.at(-1));
  drawPair();
}

function drawPair() {
  const part = current().disagreement[number("differ-part")];
  const places = ["differ-matrix", "differ-counts", "differ-examples"].map(byId);
  places.slice(0, 2).forEach((place) => (place.hidden = !part?.pairs.length));
  if (!part?.pairs.length) {
    places[2].replaceChildren(
      html("p", { class: "empty card" }, "Beside these records lie no predictions of two methods."),
    );
    byId("differ-lead").textContent = "";
    return;
  }
  const [a, b] = [number("differ-a"), number("differ-b")];
  const pair = a === b ? null : pairOf(part, a, b);
  byId("differ-lead").textContent =
    (part.threshold < 1 ? `An answer counts as right from a score of ${part.threshold}. ` : "") +
    "Every pair is compared on all examples of the split, at the lowest seed that both have; the examples below are the same " +
    "few for all pairs where that is possible, spread evenly over the split and not chosen by hand.";
  drawMatrix(places[0], current(), part, a, b, (one, two) => {
    [byId("differ-a").value, byId("differ-b").value] = [one, two];
    drawPair();
  });
  drawCounts(places[1], current(), part, pair, a, b);
  drawExamples(places[2], current(), part, pair, a, b);
}

function redrawGallery() {
  drawGallery(byId("gallery-pictures"), current(), current().gallery[number("gallery-experiment")]);
}

function redrawRuns() {
  drawRuns(byId("runs-list"), current(), data.runs.of[shown], byId("runs-experiment").value, byId("runs-status").value);
}

function show(table) {
  const axes = table === shown ? ["trade-x", "trade-y"].map((id) => byId(id).value) : [];
  shown = table;
  for (const part of document.querySelectorAll(".of-table")) part.hidden = part.dataset.table !== current().name;
  for (const button of document.querySelectorAll("[data-show]"))
    button.setAttribute("aria-pressed", String(Number(button.dataset.show) === shown));
  const { columns, figure, curves, gallery, disagreement } = current();
  for (const [section, found] of [
    ["curves", Object.keys(curves)],
    ["differ", disagreement],
    ["runs", data.runs.of[shown]],
  ])
    document.querySelector(`#${section} .controls`).hidden = !found.length;
  const keys = columns.map((column) => [column.key, column.title]);
  choose(byId("trade-x"), keys, axes[0] || figure.against[0]);
  choose(byId("trade-y"), keys, axes[1] || figure.score);
  if (!axes[0]) chooseScale();
  drawTrade();
  const experiments = Object.keys(curves).map((name) => [name, name]);
  choose(byId("curves-experiment"), experiments, byId("curves-experiment").value);
  chooseCurves();
  choose(
    byId("differ-part"),
    disagreement.map((part, index) => [String(index), part.title]),
    byId("differ-part").value,
  );
  choosePart();
  byId("gallery").hidden = !gallery.length;
  document.querySelector('a[href="#gallery"]').hidden = !gallery.length;
  choose(
    byId("gallery-experiment"),
    gallery.map(({ experiment }, index) => [String(index), experiment]),
    byId("gallery-experiment").value,
  );
  redrawGallery();
  const runs = data.runs.of[shown];
  choose(
    byId("runs-experiment"),
    [...new Set(runs.map((run) => run.experiment))].map((name) => [name, name]),
    byId("runs-experiment").value,
  );
  const statuses = [...new Set(runs.map((run) => run.status))].sort();
  choose(byId("runs-status"), [["", "all"], ...statuses.map((status) => [status, status])], byId("runs-status").value);
  redrawRuns();
}

function wantFamily() {
  family = byId("family").value;
  for (const tableRow of document.querySelectorAll("table.scores tbody tr[data-row]")) {
    const { rows } = data.tables.find(({ name }) => name === tableRow.closest(".of-table").dataset.table);
    tableRow.hidden = !isWanted(rows[tableRow.dataset.row]);
  }
  for (const table of document.querySelectorAll("table.scores")) arrange(table);
  show(shown);
}

for (const table of document.querySelectorAll("table.scores")) {
  const of = data.tables.findIndex(({ name }) => name === table.closest(".of-table").dataset.table);
  for (const row of table.tBodies[0].rows)
    row.querySelector(".mark").replaceWith(swatch(data.tables[of], Number(row.dataset.row)));
  table.classList.add("brief");
  makeSortable(table);
}
const on = (id, run) => byId(id).addEventListener("change", run);
on("trade-x", () => {
  chooseScale();
  drawTrade();
});
on("trade-y", drawTrade);
on("trade-log", drawTrade);
on("table-all", () =>
  document
    .querySelectorAll("table.scores")
    .forEach((table) => table.classList.toggle("brief", !byId("table-all").checked)),
);
on("table-grouped", () => {
  for (const table of document.querySelectorAll("table.scores")) arrange(table);
});
on("family", wantFamily);
on("curves-experiment", chooseCurves);
on("curves-metric", redrawCurves);
on("curves-smoothing", redrawCurves);
on("gallery-experiment", redrawGallery);
on("differ-part", choosePart);
on("differ-a", drawPair);
on("differ-b", drawPair);
on("runs-experiment", redrawRuns);
on("runs-status", redrawRuns);
for (const button of document.querySelectorAll("[data-show]"))
  button.addEventListener("click", () => show(Number(button.dataset.show)));

byId("family").closest("label").hidden = familiesOf(data.tables).length < 2;
choose(byId("family"), [["", "all methods"], ...familiesOf(data.tables).map((name) => [name, spoken(name)])], "");
show(0);
let width = byId("trade-chart").clientWidth;
new ResizeObserver(() => {
  if (byId("trade-chart").clientWidth === width) return;
  width = byId("trade-chart").clientWidth;
  drawTrade();
  redrawCurves();
}).observe(byId("trade-chart"));
