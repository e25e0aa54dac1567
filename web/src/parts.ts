// Pieces that several pages use.
import type { Query } from "./api";
import { ApiError, ask, isHeld } from "./api";
import type { Child } from "./dom";
import { h, replace } from "./dom";
import type { Json, Row } from "./format";
import { exact, show, textOf, title } from "./format";
import { t } from "./strings";

/** Why there is nothing to see, and how to get it. */
export function emptyNote(reason: string): HTMLElement {
  return h("div", { class: "empty", attrs: { role: "status" } }, h("strong", {}, t("Nothing to show here.")), h("p", {}, reason));
}

export function errorNote(error: unknown): HTMLElement {
  const hint = error instanceof ApiError ? error.hint : "";
  return h("div", { class: "notice", attrs: { role: "alert" } }, error instanceof Error ? error.message : String(error), hint !== "" && h("p", {}, hint));
}

export function section(name: string, ...children: Child[]): HTMLElement {
  return h("section", {}, h("h2", {}, name), ...children);
}

/** A section that fills itself from one document, or says why it is empty. */
export function load(name: string, path: string, query: Query, fill: (document: Row) => Child[], signal: AbortSignal): HTMLElement {
  const body = h("div", { class: "loading", attrs: { "aria-busy": "true" } }, t("Loading…"));
  ask(path, query, signal).then((document) => {
    const reason = textOf(document["empty"]);
    body.className = "";
    body.removeAttribute("aria-busy");
    replace(body, ...(reason !== "" ? [emptyNote(reason)] : fill(document)));
  }).catch((error: unknown) => {
    if (signal.aborted) return;
    body.className = "";
    body.removeAttribute("aria-busy");
    replace(body, errorNote(error));
  });
  return name === "" ? body : section(name, body);
}

/** Scalars of an object as a list of names and values. */
export function facts(values: Row, only?: readonly string[], look = ""): HTMLElement {
  const list = h("dl", { class: `facts ${look}` });
  for (const [name, value] of Object.entries(values)) {
    if (only !== undefined && !only.includes(name)) continue;
    if (value === null || value === "" || (typeof value === "object" && !Array.isArray(value))) continue;
    const text = Array.isArray(value) ? value.map((item: Json) => textOf(item)).join(", ") : show(name, value);
    list.append(h("dt", {}, title(name)), h("dd", { title: exact(name, value) }, text));
  }
  return list;
}

/** Tabs; the one chosen is filled when it is first shown. */
export function tabs(label: string, list: readonly (readonly [string, string, () => HTMLElement])[], current: string, onChange: (id: string) => void): HTMLElement {
  const panel = h("div", { class: "tabpanel", attrs: { role: "tabpanel" } });
  const buttons = list.map(([id, name]) => h("button", { attrs: { type: "button", role: "tab", id: `tab-${id}` } }, name));
  const bar = h("div", { class: "tabs", attrs: { role: "tablist", "aria-label": label } }, ...buttons);
  const choose = (index: number, tell: boolean): void => {
    const chosen = list[index];
    if (chosen === undefined) return;
    buttons.forEach((button, i) => {
      button.setAttribute("aria-selected", String(i === index));
      button.tabIndex = i === index ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", `tab-${chosen[0]}`);
    replace(panel, chosen[2]());
    if (tell) onChange(chosen[0]);
  };
  buttons.forEach((button, i) => { button.addEventListener("click", () => { choose(i, true); }); });
  bar.addEventListener("keydown", (event) => {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (by === 0) return;
    const next = (buttons.findIndex((button) => button === document.activeElement) + by + buttons.length) % buttons.length;
    choose(next, true);
    buttons[next]?.focus();
  });
  choose(Math.max(0, list.findIndex(([id]) => id === current)), false);
  return h("div", {}, bar, panel);
}

/** Where in the timeline a row points to, as parameters of that page; null when it does not say, or when a saved report does not hold it. */
export function hashOf(row: Row): Record<string, string | number> | null {
  const reaches = (id: Json | undefined): id is number => typeof id === "number" && isHeld(id);
  for (const name of ["slice", "first_id"]) {
    const id = row[name];
    if (reaches(id)) return { slice: id };
  }
  const link = row["link"];
  if (typeof link === "object" && link !== null && !Array.isArray(link)) return hashOf(link);
  if (reaches(row["id"]) && ["start_ns", "begin_ns", "track"].some((name) => name in row)) return { slice: row["id"] };
  // A call of a collective: its first part.
  const parts = row["parts"];
  if (Array.isArray(parts)) {
    const first = parts[0];
    return typeof first === "object" && first !== null && !Array.isArray(first) ? hashOf(first) : null;
  }
  const t0 = row["t0"] ?? row["begin_ns"] ?? row["start_ns"];
  const t1 = row["t1"] ?? row["end_ns"] ?? (typeof t0 === "number" && typeof row["duration_ns"] === "number" ? t0 + row["duration_ns"] : undefined);
  if (typeof t0 === "number" && typeof t1 === "number" && t1 > t0) return { t0, t1 };
  return null;
}
