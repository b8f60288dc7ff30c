// Any column against any other: points with error bars, and the line of what nothing beats.

const canvas = document.createElement("canvas").getContext("2d");

function drawScatter(chart, table, columns, points, log) {
  const wide = chart.clientWidth;
  const box = { left: 52, right: wide - 14, top: 26, bottom: (wide < 560 ? 400 : 470) - 52 };
  chart.replaceChildren();
  if (!points.length) {
    chart.append(html("p", { class: "empty" }, "No finished run has a number in both columns."));
    return;
  }
  const ends = (axis) => points.flatMap((p) => [p[axis] - p.spread[axis], p[axis] + p.spread[axis]]);
  const x = log
    ? logarithmic(
        points.map((p) => p.x),
        box.left,
        box.right,
      )
    : linear(...padded(ends("x"), 0.09), box.left, box.right);
  const y = linear(...padded(ends("y"), 0.1), box.bottom, box.top);
  const picture = svg(
    "svg",
    { height: box.bottom + 52, role: "group", "aria-label": `${columns[1].title} against ${columns[0].title}` },
    axes(box, x, y, columns[0].title, columns[1].title),
    acrossLines(table, columns, box, y),
  );
  for (const point of points) point.at = [x.place(point.x), y.place(point.y)];
  if (x.broken)
    spreadOut(
      points.filter((point) => point.x === 0),
      x.room,
    );
  for (const point of points) picture.append(errorBars(point, x, y, box));
  const front = frontOf(points, columns);
  picture.append(frontLine(front, columns), ...labels(points, front, box, y), ...front.map(ring));
  for (const point of points) picture.append(marker(chart, point, columns));
  picture.addEventListener("pointermove", (event) => {
    const area = picture.getBoundingClientRect();
    const [px, py] = [event.clientX - area.left, event.clientY - area.top];
    const away = (point) => Math.hypot(point.at[0] - px, point.at[1] - py);
    const nearest = points.reduce((best, point) => (away(point) < away(best) ? point : best));
    if (away(nearest) < 28) tipOf(chart, nearest, columns);
    else hideTip(chart);
  });
  picture.addEventListener("pointerleave", () => hideTip(chart));
  chart.append(picture);
}

// At zero of a logarithmic axis there is no more or less across: side by side, no error bar covers another.
function spreadOut(points, room) {
  const gap = Math.min(11, (room - 14) / Math.max(1, points.length));
  points.forEach((point, index) => (point.at[0] += (index - (points.length - 1) / 2) * gap));
}

function scatterPoints(table, [across, up]) {
  return table.rows.flatMap((row, number) => {
    if (!isWanted(row)) return [];
    const [x, y] = [row.cells[across.key], row.cells[up.key]];
    const base = { row, number, cells: [x, y] };
    const made = [];
    if (x.published !== undefined && y.published !== undefined)
      made.push({ ...base, x: x.published, y: y.published, spread: { x: 0, y: 0 }, published: true });
    if (x.mean !== undefined && y.mean !== undefined && !row.control)
      made.push({ ...base, x: x.mean, y: y.mean, spread: { x: x.std ?? 0, y: y.std ?? 0 }, published: false });
    return made;
  });
}

// Controls, and scores whose cost was not measured: a line over the whole width, or a word where it lies outside.
function acrossLines(table, [across, up], box, y) {
  const lines = svg("g");
  let below = 0;
  table.rows.forEach((row) => {
    const cell = row.cells[up.key];
    if (!isWanted(row) || cell.mean === undefined || (row.cells[across.key].mean !== undefined && !row.control)) return;
    const at = y.place(cell.mean);
    const inside = at > box.top && at < box.bottom;
    const place = inside ? at - 5 : at > box.bottom ? box.bottom - 8 - 16 * below++ : box.top + 14;
    const arrow = inside ? "" : at > box.bottom ? " ↓" : " ↑";
    const mark = svg("g", { class: colourOf(row) });
    if (inside) mark.append(svg("line", { class: "across", x1: box.left, x2: box.right, y1: at, y2: at }));
    mark.append(
      svg(
        "text",
        { class: "label", x: box.right, y: place, "text-anchor": "end" },
        `${brief(row.label)} ${fixed(cell.mean, up.digits)}${arrow}`,
      ),
    );
    lines.append(mark);
  });
  return lines;
}

// Whether more of a column is better: of most scores, of no cost.
const gains = (column) => column.score && !column.less;

function frontOf(points, [across, up]) {
  const gain = (point) => [gains(across) ? point.x : -point.x, gains(up) ? point.y : -point.y];
  const ours = points.filter((point) => !point.published);
  const own = ours.length ? ours : points;
  const beats = (one, two) => {
    const [a, b] = [gain(one), gain(two)];
    return a[0] >= b[0] && a[1] >= b[1] && (a[0] > b[0] || a[1] > b[1]);
  };
  return own.filter((point) => !own.some((other) => beats(other, point))).sort((a, b) => a.x - b.x || a.y - b.y);
}

const ring = (point) => svg("circle", { class: "ring", cx: point.at[0], cy: point.at[1], r: 10.5 });

function frontLine(front, columns) {
  const rises = gains(columns[0]) === gains(columns[1]); // the step before the next point is taken at the worse corner
  const path = front.map((point, index) => {
    const [px, py] = point.at;
    if (!index) return `M${px} ${py}`;
    return rises ? `V${py}H${px}` : `H${px}V${py}`;
  });
  return svg("path", {
    class: "front",
    d: path.join(""),
    "data-methods": front.map((point) => point.row.label).join(" "),
  });
}

function errorBars(point, x, y, box) {
  const bars = svg("g", { class: colourOf(point.row), "aria-hidden": "true" });
  const line = (x1, y1, x2, y2) => bars.append(svg("path", { class: "bars", d: `M${x1} ${y1}L${x2} ${y2}` }));
  const [px, py] = point.at;
  if (point.spread.y) {
    const [low, high] = [y.place(point.y - point.spread.y), y.place(point.y + point.spread.y)];
    line(px, low, px, high);
    for (const end of [low, high]) line(px - 4, end, px + 4, end);
  }
  if (point.spread.x) {
    const start = x.place(point.x - point.spread.x) ?? box.left; // beyond zero of a logarithmic axis
    const [low, high] = [Math.max(box.left, start), Math.min(box.right, x.place(point.x + point.spread.x))];
    line(low, py, high, py);
    for (const end of [low, high]) line(end, py - 4, end, py + 4);
  }
  return bars;
}

function marker(chart, point, columns) {
  const [px, py] = point.at;
  const said = pointValues(point, columns)
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");
  const kind = point.published ? "point published" : "point";
  return svg(
    "g",
    {
      class: `${kind} ${colourOf(point.row)}`,
      transform: `translate(${px} ${py})`,
      tabindex: 0,
      role: "img",
      "aria-label": `${point.row.label}: ${said}`,
      "data-label": point.row.label,
      onfocus: () => tipOf(chart, point, columns),
      onblur: () => hideTip(chart),
    },
    svg("path", { d: markerOf(point.row), transform: "scale(1.15)" }),
  );
}

function pointValues(point, columns) {
  return columns.map((column, axis) => {
    const cell = point.cells[axis];
    return [
      column.title,
      point.published ? `${fixed(cell.published, column.digits)} published` : estimate(column, cell),
    ];
  });
}

const tipOf = (chart, point, columns) => showTip(chart, ...point.at, point.row.label, pointValues(point, columns));

// Of many points, those on the frontier and the paper's have their names there; the tips and the legend have all.
const MANY = 12;

function named(points, front) {
  const beside = (point) => point.published && points.some((p) => !p.published && p.row === point.row);
  const few = new Set(points.map((point) => point.row)).size <= MANY;
  const own = (point) => few || front.includes(point) || point.row.families.includes("paper");
  return points.filter((point) => own(point) && !beside(point));
}

// Each label at the nearest place where it covers nothing, or at most an error bar; none where there is no such place.
function labels(points, front, box, y) {
  canvas.font = `600 13px ${getComputedStyle(document.body).fontFamily}`;
  const taken = points.map((point) => ({
    left: point.at[0] - 8,
    right: point.at[0] + 8,
    top: point.at[1] - 8,
    bottom: point.at[1] + 8,
  }));
  const bars = points.map((point) => ({
    left: point.at[0] - 4,
    right: point.at[0] + 4,
    top: y.place(point.y + point.spread.y),
    bottom: y.place(point.y - point.spread.y),
  }));
  const names = named(points, front);
  const tries = [
    [28, bars],
    [18, []],
    [90, bars],
    [90, []],
  ];
  return names.flatMap(
    (point) => tries.reduce((found, [reach, others]) => found ?? placed(point, box, taken, others, reach), null) ?? [],
  );
}

function placed(point, box, taken, others, reach) {
  const size = canvas.measureText(brief(point.row.label)).width + 4;
  for (const away of [13, 20, 28, 46, 64, 84].filter((radius) => radius <= reach))
    for (const [sx, sy] of [
      [1, 0],
      [-1, 0],
      [1, -1],
      [1, 1],
      [-1, -1],
      [-1, 1],
      [0, -1],
      [0, 1],
    ]) {
      const cx = point.at[0] + sx * away * (sy ? 0.75 : 1);
      const cy = point.at[1] + sy * away * (sx ? 0.75 : 1);
      const left = sx > 0 ? cx : sx < 0 ? cx - size : cx - size / 2;
      const place = { left, right: left + size, top: cy - 9, bottom: cy + 8 };
      const inside =
        place.left >= box.left && place.right <= box.right && place.top >= box.top && place.bottom <= box.bottom - 4;
      if (!inside || [...taken, ...others].some((other) => overlap(place, other))) continue;
      taken.push(place);
      return svg(
        "g",
        { class: colourOf(point.row), "aria-hidden": "true" },
        away > 20 ? svg("path", { class: "lead-line", d: `M${point.at[0]} ${point.at[1]}L${cx} ${cy}` }) : null,
        svg("text", { class: "label", x: left + 2, y: cy + 4 }, brief(point.row.label)),
      );
    }
  return null;
}

const overlap = (one, two) =>
  one.left < two.right && two.left < one.right && one.top < two.bottom && two.top < one.bottom;
