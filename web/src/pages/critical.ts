// What a step waited for: the critical path, and the causes of idle time on devices.
import { h } from "../dom";
import { stackedBars } from "../bars";
import type { Row } from "../format";
import { isRow, numberOf, rowsOf, textOf, title } from "../format";
import { generic, rowsTable } from "../generic";
import { load, tabs } from "../parts";
import { state } from "../state";
import { t } from "../strings";
import type { Child } from "../dom";
import type { PageContext } from "./page";
import { scopeBar, scopeQuery } from "./scope";

function path(document: Row): Child[] {
  const bounds = document["bounds"] ?? document["by_bound"];
  const nodes: Child[] = [];
  const one: Row = {};
  if (isRow(bounds)) for (const [name, value] of Object.entries(bounds)) if (typeof value === "number") one[name.endsWith("_ns") ? name : `${name}_ns`] = value;
  for (const row of rowsOf(bounds)) one[`${textOf(row["bound"] ?? row["name"])}_ns`] = numberOf(row["total_ns"] ?? row["duration_ns"] ?? row["time_ns"]);
  const parts = Object.keys(one).map((field) => ({ field, label: title(field) }));
  if (parts.length > 0) nodes.push(h("h3", {}, t("By what bounds it")), stackedBars([one], { label: t("Critical path by bound"), parts, name: () => t("path") }));
  for (const key of ["path", "segments", "rows", "edges"]) {
    if (rowsOf(document[key]).length > 0) nodes.push(h("h3", {}, title(key)), rowsTable("critical-path", document[key], { height: 320 }));
  }
  return [...nodes, ...generic(document, ["path", "segments", "rows", "edges", ...(isRow(bounds) ? [] : ["bounds", "by_bound"])], "critical-path")];
}

export function criticalPage(root: HTMLElement, { info, signal }: PageContext): void {
  const body = h("div", {});
  const fill = (): void => {
    body.replaceChildren(scopeBar(info, fill), tabs(t("Critical path"), [
      ["path", t("Critical path"), () => load("", "critical_path", scopeQuery(), path, signal)],
      ["idle", t("Idle time"), () => load("", "idle", scopeQuery(), (document) => generic(document, [], "idle"), signal)],
    ], state.get("tab", "path"), (tab) => { state.set({ tab }); }));
  };
  root.append(body);
  fill();
}
