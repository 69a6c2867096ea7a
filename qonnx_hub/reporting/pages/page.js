"use strict";
// Sorts a table by the column whose title is pressed; a second press turns it around.
for (const table of document.querySelectorAll("table.rows")) {
  const body = table.tBodies[0];
  const places = new Map([...body.rows].map((row, place) => [row, place]));
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = Number.parseFloat(text.replaceAll(",", ""));
    return Number.isNaN(number) || column < Number(table.dataset.texts) ? text : number;
  };
  const compare = (x, y) => {
    if (typeof x === "number" && typeof y === "number") return x - y;
    if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
    return x.localeCompare(y, undefined, { numeric: true });
  };
  for (const button of table.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const up = head.ariaSort !== "descending";
      for (const other of table.querySelectorAll("th")) other.ariaSort = "none";
      head.ariaSort = up ? "descending" : "ascending";
      const turn = up ? -1 : 1;
      const rows = [...body.rows].sort((a, b) =>
        turn * compare(value(a, head.cellIndex), value(b, head.cellIndex))
        || places.get(a) - places.get(b));
      body.append(...rows);
    });
  }
}
