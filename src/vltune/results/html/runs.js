// Runs by configuration: what differs first, everything inside.

const plain = (json) => {
  const value = JSON.parse(json);
  const isList = Array.isArray(value) && value.every((each) => typeof each !== "object");
  return isList ? value.join(", ") : typeof value === "string" ? value : json;
};

// Of several objects the lines of what they do not share.
const unlike = (objects, keys) =>
  keys
    .filter((key) => objects.some((each) => each[key] !== objects[0][key]))
    .map((key) => [key, ...objects.map((each) => each[key] ?? "—")]);

function drawRuns(place, table, runs, experiment, status) {
  const isOf = (run) => run.row === null || run.row === undefined || isWanted(table.rows[run.row]);
  const wanted = runs.filter((run) => run.experiment === experiment && isOf(run));
  const differing = differences(wanted);
  const configurations = new Map();
  for (const run of wanted)
    if (!status || run.status === status) {
      const key = `${run.method} ${run.hash}`;
      configurations.set(key, [...(configurations.get(key) ?? []), run]);
    }
  const order = (of) => of[0].row ?? table.rows.length;
  const groups = [...configurations.values()].sort((one, two) => order(one) - order(two));
  place.replaceChildren(...groups.map((group) => configuration(table, group, differing)));
  if (!groups.length) place.append(html("p", { class: "empty card" }, "No run of this kind."));
}

// Names, of which the run's own says enough, and how a run was started.
const NO_SETTING = /(^|\.)(_target_|name)$|^(force|from|mode|results_dir|sweep)$/;

// The settings that not all of these runs share, those of the method first.
function differences(runs) {
  const all = runs.map((run) => data.runs.settings[run.settings]);
  const keys = [...new Set(all.flatMap(Object.keys))].filter((key) => !NO_SETTING.test(key));
  const rank = (key) => (key.startsWith("method.") ? 0 : 1);
  const differing = keys.filter((key) => all.some((settings) => settings[key] !== all[0][key]));
  return differing.sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
}

function configuration(table, group, differing) {
  const [first] = group;
  const settings = data.runs.settings[first.settings];
  const own = differing.filter((key) => settings[key] !== undefined);
  const chips = own.map((key) =>
    html("span", { class: "chip code" }, `${key.replace(/^method\./, "")}=${plain(settings[key])}`),
  );
  const statuses = [...new Set(group.map((run) => run.status))].filter((status) => status !== "finished");
  const inside = html("div", { class: "inside" });
  const details = html(
    "details",
    {
      class: "run card",
      ontoggle: () => {
        if (details.open && !inside.hasChildNodes()) inside.append(...runDetails(group));
      },
    },
    html(
      "summary",
      {},
      html(
        "span",
        { class: "name" },
        ...(first.row === null ? [first.method] : [swatch(table, first.row), table.rows[first.row].label]),
      ),
      statuses.map((status) => html("span", { class: "chip status" }, status)),
      chips,
      html("span", { class: "seeds" }, `${first.hash} · ${seedsOf(group)}`),
    ),
    inside,
  );
  return details;
}

function seedsOf(group) {
  if (!group[0].trained) return "costs alone";
  return `${group.length === 1 ? "seed" : "seeds"} ${group.map((run) => run.seed).join(", ")}`;
}

function runDetails(group) {
  const names = [...new Set(group.flatMap((run) => [...Object.keys(run.scores), ...Object.keys(run.costs)]))];
  const number = (value) => (value === undefined ? "—" : Number.isInteger(value) ? count(value) : short(value));
  const rows = names.map((name) => [name, ...group.map((run) => number(run.scores[name] ?? run.costs[name]))]);
  const others = [
    ["status", (run) => run.status],
    ["seconds", (run) => (run.seconds === null ? "—" : short(run.seconds))],
    ["started", (run) => run.started],
    ["machine", (run) => run.machine],
    ["precision", (run) => run.precision ?? "—"],
    ["commit", (run) => (run.commit ? run.commit.slice(0, 12) + (run.dirty ? ", changed" : "") : "—")],
    ["unreadable examples", (run) => String(run.bad_examples)],
    ["record", (run) => run.path],
  ].map(([name, of]) => [name, ...group.map(of)]);
  const differing = differences(group);
  const told = (settings) => (key) => [key, settings[key] === undefined ? "—" : plain(settings[key])];
  const own = group.map((run) => Object.fromEntries(differing.map(told(data.runs.settings[run.settings]))));
  const within = unlike(own, differing);
  const versions = group.map((run) => data.runs.packages[run.packages]);
  within.push(...unlike(versions, [...new Set(versions.flatMap(Object.keys))]));
  const errors = group
    .filter((run) => run.error)
    .map((run) => [html("h4", {}, `Seed ${run.seed} ended with`), html("pre", {}, run.error)]);
  const settings = { ...data.runs.common, ...data.runs.settings[group[0].settings] };
  const lines = Object.keys(settings)
    .sort()
    .map((key) => `${key}: ${plain(settings[key])}`);
  const of = within.length ? `, seed ${group[0].seed}` : "";
  const packages = Object.entries(data.runs.packages[group[0].packages]).map(([name, version]) => `${name} ${version}`);
  const seeds = group.map((run) => html("th", { scope: "col" }, run.trained ? String(run.seed) : "none"));
  const cells = (values) =>
    new Set(values).size > 1
      ? values.map((value) => html("td", {}, value))
      : html("td", { colspan: values.length }, values[0]);
  const line = ([name, ...values]) => html("tr", {}, html("th", { scope: "row" }, name), cells(values));
  return [
    ...errors.flat(),
    html(
      "div",
      { class: "scroll" },
      html(
        "table",
        {},
        html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "seed"), seeds)),
        html("tbody", {}, [...rows, ...others, ...within].map(line)),
      ),
    ),
    html(
      "details",
      {},
      html("summary", {}, `Whole configuration${of}, ${lines.length} settings`),
      html("pre", {}, lines.join("\n")),
    ),
    html(
      "details",
      {},
      html("summary", {}, `Versions of ${packages.length} packages${of}`),
      html("pre", {}, packages.join("\n")),
    ),
  ];
}
