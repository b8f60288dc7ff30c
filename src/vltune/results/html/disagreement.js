// Two methods on the same examples: how often only one is right, and on which.

const AT_FIRST = 4;

function pairOf(part, a, b) {
  const found = part.pairs.find((pair) => {
    const rows = [part.runs[pair.a].row, part.runs[pair.b].row];
    return rows.includes(a) && rows.includes(b);
  });
  if (!found) return null;
  const [both, one, two, neither] = found.counts;
  const straight = part.runs[found.a].row === a;
  return straight
    ? { a: found.a, b: found.b, counts: [both, one, two, neither] }
    : { a: found.b, b: found.a, counts: [both, two, one, neither] };
}

const comparedRows = (table, part) =>
  [...new Set(part.runs.map((run) => run.row))].filter((row) => isWanted(table.rows[row])).sort((a, b) => a - b);
const share = (number, counts) => number / counts.reduce((sum, other) => sum + other, 0);
const percent = (value) => `${(100 * value).toFixed(1)} %`;

function drawMatrix(place, table, part, a, b, pick) {
  const rows = comparedRows(table, part);
  const shares = rows.map((one) =>
    rows.map((two) => {
      const pair = one === two ? null : pairOf(part, one, two);
      return pair && share(pair.counts[1], pair.counts);
    }),
  );
  place.classList.toggle("many", rows.length > MANY);
  const most = Math.max(...shares.flat().filter((value) => value !== null), 1e-9);
  const cell = (one, two, value) => {
    if (value === null) return html("td");
    const [first, second] = [table.rows[one].label, table.rows[two].label];
    return html(
      "td",
      {},
      html(
        "button",
        {
          type: "button",
          tabindex: -1,
          style: `--share:${(value / most).toFixed(3)}`,
          "aria-pressed": String(one === a && two === b),
          title: `only ${first} right, ${second} wrong: ${percent(value)}`,
          onclick: () => pick(one, two),
        },
        (100 * value).toFixed(value < 0.0995 ? 1 : 0),
      ),
    );
  };
  place.replaceChildren(
    html(
      "table",
      { class: "matrix" },
      html("caption", {}, "Only the row's method is right, the column's is wrong; % of the examples"),
      html(
        "thead",
        {},
        html(
          "tr",
          {},
          html("td"),
          rows.map((row) =>
            html(
              "th",
              { scope: "col", title: table.rows[row].label },
              swatch(table, row),
              html("span", { class: "hidden-text" }, table.rows[row].label),
            ),
          ),
        ),
      ),
      html(
        "tbody",
        {},
        rows.map((one, i) =>
          html(
            "tr",
            {},
            html("th", { scope: "row" }, swatch(table, one), table.rows[one].label),
            rows.map((two, j) => cell(one, two, shares[i][j])),
          ),
        ),
      ),
    ),
  );
}

function drawCounts(place, table, part, pair, a, b) {
  if (!pair) {
    place.replaceChildren(
      html("p", { class: "empty" }, a === b ? "Choose two methods." : "These two have no seed in common."),
    );
    return;
  }
  const names = [a, b].map((row) => table.rows[row].label);
  const kinds = [
    ["both", "both right"],
    ["only-a", `only A right: ${names[0]}`],
    ["only-b", `only B right: ${names[1]}`],
    ["neither", "both wrong"],
  ];
  const total = pair.counts.reduce((sum, number) => sum + number, 0);
  const [, one, two] = pair.counts;
  const seeds = [pair.a, pair.b].map((run) => part.runs[run].seed);
  place.replaceChildren(
    html(
      "div",
      { class: "stack", "aria-hidden": "true" },
      kinds.map(([kind], index) => html("span", { class: kind, style: `flex: ${pair.counts[index]} 0 0` })),
    ),
    html(
      "table",
      { class: "counts" },
      html("caption", {}, `${count(total)} examples of ${part.split}, seed ${seeds[0]}`),
      html(
        "tbody",
        {},
        kinds.map(([kind, name], index) =>
          html(
            "tr",
            {},
            html("th", { scope: "row" }, html("span", { class: `swatch ${kind}` }), name),
            html("td", {}, count(pair.counts[index])),
            html("td", {}, percent(pair.counts[index] / total)),
          ),
        ),
      ),
    ),
    html(
      "p",
      { class: "left-out" },
      `Of the ${count(one + two)} that exactly one has right, ${names[0]} has ${percent(one / Math.max(1, one + two))}. ` +
        "That is one seed of each: what the seeds differ by stands in the table.",
    ),
  );
}

function drawExamples(place, table, part, pair, a, b) {
  if (!pair) return place.replaceChildren();
  const right = (given) => given !== null && given[1] > part.threshold - 1e-3;
  const side = (winner, loser, row, letter) => {
    const all = part.examples.filter(
      ({ given }) => given[winner] && given[loser] && right(given[winner]) && !right(given[loser]),
    );
    const total = pair.counts[letter === "A" ? 1 : 2];
    const list = html(
      "ul",
      { class: "examples" },
      all.slice(0, AT_FIRST).map((example) => card(part, example, pair, right)),
    );
    const shown = () => `${count(Math.min(list.children.length, total))} of ${count(total)}`;
    const told = html("small", {}, shown());
    const more = html(
      "button",
      {
        type: "button",
        class: "more-button",
        onclick: () => {
          list.append(...all.slice(AT_FIRST).map((example) => card(part, example, pair, right)));
          told.textContent = shown();
          more.remove();
        },
      },
      `${all.length - AT_FIRST} more`,
    );
    return html(
      "div",
      {},
      html(
        "h3",
        {},
        html("span", { class: `swatch only-${letter.toLowerCase()}` }),
        `Only ${letter} is right: ${table.rows[row].label}`,
        told,
      ),
      list,
      all.length > AT_FIRST ? more : null,
    );
  };
  const notes = [];
  if (part.without) notes.push(`Questions, pictures and true answers are not shown: ${part.without}.`);
  for (const run of part.runs.filter(({ row, shuffled }) => shuffled && [a, b].includes(row)))
    notes.push(`${table.rows[run.row].label} was shown another example's picture in the place of the one here.`);
  if (data.pictures_left_out)
    notes.push(`${count(data.pictures_left_out)} pictures are left out of this page, so that it stays small.`);
  place.replaceChildren(
    html("div", { class: "sides" }, side(pair.a, pair.b, a, "A"), side(pair.b, pair.a, b, "B")),
    ...notes.map((note) => html("p", { class: "left-out" }, note)),
  );
}

function card(part, example, pair, right) {
  const answered = example.given.filter((given) => given !== null);
  const line = (name, given) => [
    html("dt", {}, name),
    html(
      "dd",
      { class: right(given) ? "yes" : "no" },
      right(given) ? "✓ " : "✗ ",
      thing(part.said[given[0]]),
      partly(part, given[1]),
    ),
  ];
  const images = (example.images ?? []).map((image) => picture(image, `picture of example ${example.id}`));
  return html(
    "li",
    { class: `example${images.length === 1 ? "" : " tall"}`, "data-id": example.id },
    images.length ? html("div", { class: "seen" }, images) : null,
    html(
      "div",
      { class: "told" },
      html("p", {}, example.text ?? (example.images ? "" : `example ${example.id}`)),
      html(
        "dl",
        { class: "answers" },
        line("A", example.given[pair.a]),
        line("B", example.given[pair.b]),
        example.answers?.length ? [html("dt", {}, "truth"), html("dd", {}, truth(part, example.answers))] : null,
      ),
      html("small", {}, `${answered.filter(right).length} of ${answered.length} methods right · id ${example.id}`),
    ),
  );
}

// What a score between wrong and right says.
function partly(part, score) {
  if (score < 0.005 || score > 0.995) return "";
  return part.places ? ` (true one: place ${Math.round(1 / score)})` : ` (${Number(score.toFixed(2))})`;
}

function truth(part, answers) {
  const best = [...answers].sort((one, two) => two[1] - one[1]).slice(0, 3);
  const parts = best.flatMap(([number, score], index) => [
    index ? "; " : "",
    thing(part.said[number]),
    score < 0.995 ? ` (${score.toFixed(1)})` : "",
  ]);
  return [...parts, answers.length > best.length ? `; ${answers.length - best.length} more` : ""];
}

const thing = (said) =>
  said.images?.some((number) => number !== null) ? said.images.map((number) => picture(number, said.text)) : said.text;
const picture = (number, alt) =>
  number === null
    ? html("span", { class: "chip" }, "picture left out")
    : html("img", { src: data.pictures[number], alt });
