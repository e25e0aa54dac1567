// What a step waited for: the critical path, and the causes of idle time on devices.
import { h, replace } from "../dom";
import { stackedBars } from "../bars";
import type { Row } from "../format";
import { isRow, title } from "../format";
import { generic, rowsTable } from "../generic";
import { facts, load, tabs } from "../parts";
import { state } from "../state";
import { t } from "../strings";
import type { Child } from "../dom";
import type { PageContext } from "./page";
import { scopeBar, scopeQuery } from "./scope";

function path(document: Row): Child[] {
  const bounds = isRow(document["bounds"]) ? document["bounds"] : {};
  const parts = Object.keys(bounds).map((field) => ({ field, label: title(field) }));
  return [
    facts(document, ["rank", "step", "length_ns"]),
    h("h3", {}, t("By what bounds it")), stackedBars([bounds], { label: t("Critical path by bound"), parts, name: () => t("path") }),
    rowsTable("critical-path", document["rows"], { sort: "-total_ns", bar: "total_ns", height: 300 }),
    h("h3", {}, t("If a class took half as long")), rowsTable("what-if", document["what_if"], { sort: "length_ns" }),
    h("details", {}, h("summary", {}, t("The path")), rowsTable("critical-parts", document["parts"], { height: 320 })),
  ];
}

export function criticalPage(root: HTMLElement, { info, signal }: PageContext): void {
  const body = h("div", {});
  const fill = (): void => {
    replace(body, scopeBar(info, fill), tabs(t("Critical path"), [
      ["path", t("Critical path"), () => load("", "critical_path", scopeQuery(), path, signal)],
      ["idle", t("Idle time"), () => load("", "idle", scopeQuery(), (document) => generic(document, [], "idle"), signal)],
    ], state.get("tab", "path"), (tab) => { state.set({ tab }); }));
  };
  root.append(body);
  fill();
}
