// Pictures that runs made: a line for each prompt and seed, a column for each method.

function drawGallery(place, table, gallery) {
  if (!gallery) {
    place.replaceChildren();
    return;
  }
  const cell = (number, alt) => html("td", {}, number === undefined ? "" : picture(number, alt));
  const line = ({ text, beside, pictures }) => {
    const of = new Map(pictures);
    return html(
      "tr",
      {},
      html("th", { scope: "row" }, text),
      cell(beside ?? undefined, `what ${text} is compared with`),
      gallery.rows.map((row) => cell(of.get(row), `${text}, ${table.rows[row].label}`)),
    );
  };
  const head = html(
    "tr",
    {},
    html("th", { scope: "col" }, "prompt"),
    html("th", { scope: "col" }, "beside"),
    gallery.rows.map((row) => html("th", { scope: "col" }, swatch(table, row), table.rows[row].label)),
  );
  place.replaceChildren(
    html("table", { class: "gallery" }, html("thead", {}, head), html("tbody", {}, gallery.lines.map(line))),
  );
}
