// A table of any length: only the rows in view exist as elements. Sorting, filter, choice of
// columns, copying and CSV work on all rows.
import { button, download, h, replace } from "./dom";
import type { Json, Row } from "./format";
import { csv, exact, rowsOf, show, textOf, title, tsv } from "./format";
import { t } from "./strings";

export interface TableOptions {
  name: string;                                   // of the CSV file
  label: string;                                  // for screen readers
  columns?: readonly string[];                    // first and in this order; default: as they come
  hidden?: readonly string[];                     // not shown at first
  sort?: string;                                  // "-total_ns": descending
  bar?: string;                                   // a column drawn with a bar behind it
  height?: number;                                // of the scrolled part, px
  onOpen?: (row: Row) => void;                    // Enter or double click
  openLabel?: string;
}

const rowHeight = 24;

/** Columns of scalars that occur in the rows. */
export function scalarColumns(rows: readonly Row[]): string[] {
  const names = new Set<string>();
  for (const row of rows.slice(0, 200)) {
    for (const [name, value] of Object.entries(row)) {
      if (value === null || typeof value !== "object") names.add(name);
    }
  }
  return [...names];
}

function compare(a: Json | undefined, b: Json | undefined): number {
  const aMissing = a === null || a === undefined, bMissing = b === null || b === undefined;
  if (aMissing || bMissing) return Number(aMissing) - Number(bMissing);
  if (typeof a === "number" && typeof b === "number") return a - b;
  return textOf(a).localeCompare(textOf(b), "en", { numeric: true });
}

export function table(source: Json | undefined, options: TableOptions): HTMLElement {
  const all = rowsOf(source);
  const available = [...new Set([...(options.columns ?? []), ...scalarColumns(all)])]
    .filter((column) => all.some((row) => column in row));
  const numbers = new Set(available.filter((column) => all.some((row) => typeof row[column] === "number")));
  const hidden = new Set(options.hidden ?? []);
  let sort = options.sort ?? "";
  let filter = "";
  let rows = all;
  let active = 0;

  const head = h("tr", {});
  const body = h("tbody", {});
  const grid = h("table", { class: "grid", attrs: { "aria-label": options.label, "aria-rowcount": all.length + 1 } },
    h("thead", {}, head), body);
  const scroller = h("div", { class: "table-scroll", attrs: { tabindex: 0, role: "region", "aria-label": options.label } }, grid);
  if (options.height !== undefined) scroller.style.maxHeight = `${options.height}px`;
  const count = h("span", { class: "muted", attrs: { "aria-live": "polite" } });
  const visible = (): string[] => available.filter((column) => !hidden.has(column));

  const maxOf = (column: string): number =>
    rows.reduce((most, row) => Math.max(most, typeof row[column] === "number" ? row[column] : 0), 0);
  let barMax = options.bar === undefined ? 0 : maxOf(options.bar);

  function cell(row: Row, column: string): HTMLTableCellElement {
    const value = row[column];
    const numeric = typeof value === "number";
    const element = h("td", { class: numbers.has(column) ? "num" : "", title: exact(column, value) }, show(column, value));
    if (column === options.bar && numeric && barMax > 0) {
      element.classList.add("bar");
      element.style.setProperty("--part", `${Math.max(0, (value / barMax) * 100)}%`);
    }
    return element;
  }

  function drawRows(): void {
    const columns = visible();
    const first = Math.max(0, Math.floor(scroller.scrollTop / rowHeight) - 10);
    const last = Math.min(rows.length, first + Math.ceil((scroller.clientHeight || 600) / rowHeight) + 20);
    const spacer = (count: number): HTMLTableRowElement => {
      const element = h("tr", { class: "spacer", attrs: { "aria-hidden": "true" } }, h("td", { attrs: { colspan: columns.length } }));
      element.style.height = `${count * rowHeight}px`;
      return element;
    };
    const elements: Node[] = first > 0 ? [spacer(first)] : [];
    for (let i = first; i < last; ++i) {
      const row = rows[i];
      if (row === undefined) continue;
      elements.push(h("tr", {
        class: i === active ? "active" : "",
        attrs: { "aria-rowindex": i + 2, "aria-selected": String(i === active) },
        on: { click: () => { active = i; drawRows(); }, dblclick: () => { options.onOpen?.(row); } },
      }, ...columns.map((column) => cell(row, column))));
    }
    if (last < rows.length) elements.push(spacer(rows.length - last));
    body.replaceChildren(...elements);
  }

  function drawHead(): void {
    replace(head, ...visible().map((column) => {
      const up = sort === column, down = sort === `-${column}`;
      const number = numbers.has(column);
      return h("th", { class: number ? "num" : "", attrs: { scope: "col", "aria-sort": up ? "ascending" : down ? "descending" : "none" } },
        button(`${title(column)}${up ? " ▲" : down ? " ▼" : ""}`, () => {
          sort = down ? column : up ? `-${column}` : number ? `-${column}` : column;
          update();
          [...head.querySelectorAll("button")][visible().indexOf(column)]?.focus();
        }, { class: "head" }));
    }));
  }

  function update(): void {
    const needle = filter.toLowerCase();
    rows = needle === "" ? [...all]
      : all.filter((row) => available.some((column) => textOf(row[column]).toLowerCase().includes(needle)));
    if (sort !== "") {
      const column = sort.replace(/^-/, ""), sign = sort.startsWith("-") ? -1 : 1;
      // What is missing comes last in both directions.
      rows.sort((a, b) => {
        const aMissing = (a[column] ?? null) === null, bMissing = (b[column] ?? null) === null;
        return aMissing || bMissing ? Number(aMissing) - Number(bMissing) : sign * compare(a[column], b[column]);
      });
    }
    active = 0;
    barMax = options.bar === undefined ? 0 : maxOf(options.bar);
    count.textContent = rows.length === all.length ? t("{n} rows", { n: rows.length })
      : t("{n} of {all} rows", { n: rows.length, all: all.length });
    scroller.scrollTop = 0;
    drawHead();
    drawRows();
  }

  scroller.addEventListener("scroll", () => { requestAnimationFrame(drawRows); });
  scroller.addEventListener("keydown", (event) => {
    if (event.target !== scroller) return;
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 20, PageUp: -20, Home: -rows.length, End: rows.length }[event.key];
    if (step !== undefined) {
      active = Math.max(0, Math.min(rows.length - 1, active + step));
      const top = active * rowHeight;
      if (top < scroller.scrollTop) scroller.scrollTop = top;
      if (top > scroller.scrollTop + scroller.clientHeight - 3 * rowHeight) scroller.scrollTop = top - scroller.clientHeight + 3 * rowHeight;
      drawRows();
      event.preventDefault();
    } else if (event.key === "Enter" && rows[active] !== undefined) {
      options.onOpen?.(rows[active] as Row);
    }
  });

  const search = h("input", { attrs: { type: "search", placeholder: t("Filter"), "aria-label": t("Filter") } });
  search.addEventListener("input", () => { filter = search.value; update(); });
  const columnList = h("details", { class: "columns" }, h("summary", {}, t("Columns")));
  const choices = h("div", { class: "choices" });
  for (const column of available) {
    const box = h("input", { attrs: { type: "checkbox", checked: !hidden.has(column) } });
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(column); else hidden.add(column);
      drawHead();
      drawRows();
    });
    choices.appendChild(h("label", {}, box, title(column)));
  }
  columnList.appendChild(choices);
  const bar = h("div", { class: "toolbar" }, search, columnList,
    button("CSV", () => { download(`${options.name}.csv`, "text/csv", csv(visible(), rows)); }, { title: t("Save all rows as CSV") }),
    button(t("Copy"), () => { void navigator.clipboard.writeText(tsv(visible(), rows)); }, { title: t("Copy all rows, separated by tabs") }),
    count,
    options.onOpen !== undefined && h("span", { class: "muted" }, options.openLabel ?? t("Enter or double click opens a row")));
  update();
  // The number of rows to draw depends on a height that is known once the table stands in the page.
  requestAnimationFrame(drawRows);
  return h("div", { class: "table" }, bar, scroller);
}
