// Scales: a number to a pixel, and ticks.

function linear(low, high, from, to) {
  if (low === high) [low, high] = [low - Math.max(1, Math.abs(low) / 10), high + Math.max(1, Math.abs(high) / 10)];
  const place = (value) => from + ((value - low) / (high - low)) * (to - from);
  const wanted = Math.max(2, Math.min(8, Math.abs(to - from) / 75));
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) * power;
  const ticks = [];
  for (let number = Math.ceil(low / step - 1e-9); number * step <= high + step * 1e-9; number++)
    ticks.push(number * step);
  return { place, ticks, name: short };
}

// Powers of ten; a method that costs nothing has its place left of a break in the axis, one that saves further left.
function logarithmic(values, from, to) {
  const positive = values.filter((value) => value > 0);
  const room = to - from;
  const least = Math.min(0, ...values);
  const zero = positive.length < values.length ? from + room * (least < 0 ? 0.13 : 0.05) : null;
  const start = zero === null ? from : zero + room * 0.11;
  const [low, high] = [Math.min(...positive), Math.max(...positive)].map(Math.log10);
  const pad = Math.max(0.08 * (high - low), 0.05);
  const below = (value) => (least < 0 && zero !== null ? zero - (value / least) * 0.1 * room : zero);
  const place = (value) =>
    value > 0 ? start + ((Math.log10(value) - low + pad) / (high - low + 2 * pad)) * (to - start) : below(value);
  const factors = high - low > 4 ? [1] : high - low > 2.2 ? [1, 3] : [1, 2, 5];
  const ticks = zero === null ? [] : least < 0 ? [least, 0] : [0];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++)
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (place(value) >= start && place(value) <= to) ticks.push(value);
    }
  return { place, ticks, name: short, broken: zero === null ? null : zero + room * 0.055, room: room * 0.105 };
}

function padded(values, share) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return [low - share * (high - low), high + share * (high - low)];
}

// Grid, ticks and titles.  box: left, right, top, bottom in pixels.
function axes(box, x, y, titleX, titleY) {
  const parts = y.ticks.flatMap((value) => [
    svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y.place(value), y2: y.place(value) }),
    svg("text", { x: box.left - 8, y: y.place(value) + 4, "text-anchor": "end" }, y.name(value)),
  ]);
  for (const value of x.ticks) {
    const at = x.place(value);
    parts.push(svg("line", { class: "grid", x1: at, x2: at, y1: box.top, y2: box.bottom }));
    parts.push(svg("text", { x: at, y: box.bottom + 18, "text-anchor": "middle" }, x.name(value)));
  }
  parts.push(svg("path", { class: "axis", d: `M${box.left} ${box.bottom}H${box.right}` }));
  if (x.broken) {
    const slash = (at) => `M${at - 3} ${box.bottom + 6}L${at + 3} ${box.bottom - 6}`;
    parts.push(svg("path", { class: "axis", d: slash(x.broken - 3) + slash(x.broken + 3) }));
  }
  parts.push(svg("text", { class: "title", x: box.right, y: box.bottom + 38, "text-anchor": "end" }, `${titleX} →`));
  parts.push(svg("text", { class: "title", x: 0, y: 12 }, `↑ ${titleY}`));
  return svg("g", { "aria-hidden": "true" }, parts);
}
