// Tables that sort by a column: the better end first, then the other, then the order they came in.

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const original = [...body.rows];
  heads.forEach((head, column) => {
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
            body.append(...(order === "none" ? original : sorted(original, column, order === "ascending" ? 1 : -1)));
          },
        },
        ...head.childNodes,
      ),
    );
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
