// Tables that sort by a column, the better end first, then the other, then the order they came in; and by family.

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  table.original = [...table.tBodies[0].rows];
  heads.forEach((head) => {
    const first = head.dataset.better === "more" ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const next = { none: first, [first]: second, [second]: "none" };
    head.setAttribute("aria-sort", "none");
    head.replaceChildren(
      html(
        "button",
        {
          type: "button",
          onclick: () => {
            const order = next[head.getAttribute("aria-sort")];
            heads.forEach((other) => other.setAttribute("aria-sort", other === head ? order : "none"));
            arrange(table);
          },
        },
        ...head.childNodes,
      ),
    );
  });
}

// The rows in the order that is asked for, and below the names of their families where that is.
function arrange(table) {
  const heads = [...table.tHead.rows[0].cells];
  const column = heads.findIndex((head) => head.getAttribute("aria-sort") !== "none");
  const sign = column >= 0 && heads[column].getAttribute("aria-sort") === "ascending" ? 1 : -1;
  const rows = column < 0 ? table.original : sorted(table.original, column, sign);
  table.tBodies[0].replaceChildren(...(byId("table-grouped").checked ? grouped(table, rows) : rows));
}

function grouped(table, rows) {
  const { rows: described } = data.tables.find(({ name }) => name === table.closest(".of-table").dataset.table);
  const of = (row) => described[row.dataset.row].family;
  const families = [...new Set(table.original.map(of))];
  return families.flatMap((name) => {
    const own = rows.filter((row) => of(row) === name);
    const heading = html("th", { scope: "rowgroup" }, name === null ? "beside the families" : spoken(name));
    const rest = html("td", { colspan: table.tHead.rows[0].cells.length - 1 });
    return own.some((row) => !row.hidden) ? [html("tr", { class: "family" }, heading, rest), ...own] : own;
  });
}

// Rows without a value come last either way.
function sorted(rows, column, sign) {
  const value = (row) => {
    const cell = row.cells[column];
    if (column === 0) return cell.textContent;
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };
  return [...rows].sort((one, two) => {
    const [a, b] = [value(one), value(two)];
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "string" ? a.localeCompare(b, "en") : a - b);
  });
}
