// A tip inside a chart: a heading and named values.

function showTip(chart, x, y, heading, values) {
  hideTip(chart);
  const tip = html(
    "div",
    { class: "tip" },
    html("b", {}, heading),
    html(
      "dl",
      {},
      values.flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, value)]),
    ),
  );
  chart.append(tip);
  const right = x + 16 + tip.offsetWidth <= chart.clientWidth;
  const left = right ? x + 16 : Math.max(0, Math.min(x - 16 - tip.offsetWidth, chart.clientWidth - tip.offsetWidth));
  tip.style.left = `${left}px`;
  tip.style.top = `${Math.max(0, Math.min(y - tip.offsetHeight / 2, chart.clientHeight - tip.offsetHeight))}px`;
}

function hideTip(chart) {
  chart.querySelector(".tip")?.remove();
}
