// Shows a document whose lists and numbers speak for themselves: facts, then one table a list.
import type { Child } from "./dom";
import { h } from "./dom";
import type { Json, Row } from "./format";
import { isRow, rowsOf, textOf, title } from "./format";
import { facts, hashOf } from "./parts";
import { state } from "./state";
import { t } from "./strings";
import { table } from "./table";

/** A row that names an event, a time or a range opens the timeline there. */
export function openRow(row: Row): void {
  const link = hashOf(row);
  if (link !== null) state.go("timeline", link);
}

export function rowsTable(name: string, value: Json | undefined, more: Partial<Parameters<typeof table>[1]> = {}): HTMLElement {
  const rows = rowsOf(value);
  const opens = rows.some((row) => hashOf(row) !== null);
  return table(rows, { name, label: title(name), ...(opens ? { onOpen: openRow, openLabel: t("Enter or double click shows it in the timeline") } : {}), ...more });
}

export function generic(document: Row, skip: readonly string[] = [], name = "table"): Child[] {
  const nodes: Child[] = [];
  const scalars: Row = {};
  for (const [key, value] of Object.entries(document)) {
    if (!skip.includes(key) && (value === null || typeof value !== "object")) scalars[key] = value;
  }
  if (Object.keys(scalars).length > 0) nodes.push(facts(scalars));
  for (const [key, value] of Object.entries(document)) {
    if (skip.includes(key) || value === null || typeof value !== "object") continue;
    if (Array.isArray(value)) {
      const rows = rowsOf(value);
      if (rows.length > 0) nodes.push(h("h3", {}, title(key)), rowsTable(`${name}-${key}`, rows, { height: 320 }));
      else if (value.length > 0 && value.every((item) => typeof item === "string")) {
        nodes.push(h("h3", {}, title(key)), h("ul", {}, ...value.map((item) => h("li", {}, textOf(item)))));
      }
    } else if (isRow(value) && Object.keys(value).length > 0) {
      const lists = Object.values(value).some((item) => rowsOf(item).length > 0);
      nodes.push(h("h3", {}, title(key)), ...(lists ? generic(value, [], `${name}-${key}`) : [facts(value)]));
    }
  }
  return nodes;
}
