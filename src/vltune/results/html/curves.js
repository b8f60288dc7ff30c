// Learning curves: the mean over seeds, and each run behind it.

const hiddenRows = new Set(); // "table/row"

function drawCurves(chart, table, experiment, metric, window) {
  chart.replaceChildren();
  chart.classList.remove("dimmed");
  const found = table.curves[experiment];
  const all = found?.metrics[metric] ?? [];
  const shownRow = ({ row }) => isWanted(table.rows[row]) && !hiddenRows.has(`${table.name}/${row}`);
  const lines = seedMeans(found, all, window).filter(shownRow);
  if (!lines.length) {
    chart.append(
      html("p", { class: "empty" }, all.length ? "All methods are hidden." : "No record holds such a curve."),
    );
    return;
  }
  const wide = chart.clientWidth;
  const box = { left: 52, right: wide - 14, top: 26, bottom: (wide < 560 ? 360 : 430) - 52 };
  const everything = lines.flatMap((line) => [line.mean, ...line.runs]).flat();
  const steps = everything.map(([step]) => step);
  const x = linear(Math.min(...steps), Math.max(...steps), box.left, box.right);
  const y = linear(
    ...padded(
      everything.map(([, value]) => value),
      0.04,
    ),
    box.bottom,
    box.top,
  );
  const path = (points) =>
    `M${points.map(([step, value]) => `${x.place(step).toFixed(1)} ${y.place(value).toFixed(1)}`).join("L")}`;
  const picture = svg(
    "svg",
    {
      height: box.bottom + 52,
      role: "img",
      "aria-label": `${metric} over the steps of training, ${lines.length} methods`,
    },
    axes(box, x, y, "step", metric),
  );
  for (const { row, runs } of lines)
    for (const run of runs.length > 1 ? runs : [])
      picture.append(svg("path", { class: `faint ${colourOf(table.rows[row])}`, "data-row": row, d: path(run) }));
  for (const { row, mean } of lines)
    picture.append(
      svg("path", {
        class: `line ${colourOf(table.rows[row])}`,
        "data-row": row,
        "stroke-dasharray": dashOf(table.rows[row]),
        d: path(mean),
      }),
    );
  const rule = svg("line", { class: "rule", y1: box.top, y2: box.bottom, visibility: "hidden" });
  picture.append(rule);
  picture.addEventListener("pointermove", (event) => {
    const px = event.clientX - picture.getBoundingClientRect().left;
    const step = steps.reduce((best, other) =>
      Math.abs(x.place(other) - px) < Math.abs(x.place(best) - px) ? other : best,
    );
    const at = x.place(step);
    for (const [name, value] of [
      ["x1", at],
      ["x2", at],
      ["visibility", "visible"],
    ])
      rule.setAttribute(name, value);
    const values = lines.flatMap(({ row, mean }) =>
      mean.filter(([other]) => other === step).map(([, value]) => [table.rows[row].label, value]),
    );
    values.sort((one, two) => two[1] - one[1]);
    showTip(
      chart,
      at,
      box.top + 90,
      `step ${count(step)}`,
      values.map(([name, value]) => [name, short(value)]),
    );
  });
  picture.addEventListener("pointerleave", () => {
    rule.setAttribute("visibility", "hidden");
    hideTip(chart);
  });
  chart.append(picture);
}

// For each row its runs, smoothed, and their mean at the steps that all of them have.
function seedMeans(found, all, window) {
  const rows = [...new Set(all.map((curve) => curve.row))].sort((a, b) => a - b);
  return rows.map((row) => {
    const runs = all
      .filter((curve) => curve.row === row)
      .map((curve) => {
        const values = smooth(curve.values, window);
        return found.steps[curve.steps].map((step, index) => [step, values[index]]);
      });
    const others = runs.slice(1).map((run) => new Map(run));
    const shared = runs[0].filter(([step]) => others.every((run) => run.has(step)));
    const mean = shared.map(([step, value]) => [
      step,
      others.reduce((sum, run) => sum + run.get(step), value) / runs.length,
    ]);
    return { row, runs, mean: mean.length ? mean : runs[0] };
  });
}

function smooth(values, window) {
  const half = (window - 1) / 2;
  return values.map((_, index) => {
    const part = values.slice(Math.max(0, index - half), index + half + 1); // at an end, those that there are
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
}

function curveLegend(list, chart, table, experiment, redraw) {
  const rows = [
    ...new Set(
      Object.values(table.curves[experiment]?.metrics ?? {})
        .flat()
        .map((curve) => curve.row),
    ),
  ]
    .filter((row) => isWanted(table.rows[row]))
    .sort((a, b) => a - b);
  const emphasise = (row) => {
    chart.classList.toggle("dimmed", row !== null);
    for (const line of chart.querySelectorAll("[data-row]"))
      line.classList.toggle("strong", Number(line.dataset.row) === row);
  };
  list.replaceChildren(
    ...rows.map((row) => {
      const key = `${table.name}/${row}`;
      const button = html(
        "button",
        {
          type: "button",
          "aria-pressed": String(!hiddenRows.has(key)),
          onclick: () => {
            if (!hiddenRows.delete(key)) hiddenRows.add(key);
            button.setAttribute("aria-pressed", String(!hiddenRows.has(key)));
            redraw();
          },
          onpointerenter: () => emphasise(row),
          onpointerleave: () => emphasise(null),
          onfocus: () => emphasise(row),
          onblur: () => emphasise(null),
        },
        lineSwatch(table, row),
        table.rows[row].label,
      );
      return html("li", {}, button);
    }),
  );
}
