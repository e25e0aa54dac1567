// Memory over time by category, what is alive at the peak, and allocator snapshots.
import { isReport } from "../api";
import { h, select } from "../dom";
import type { Child } from "../dom";
import type { Json, Row } from "../format";
import { bytes, isRow, numberOf, rowsOf, textOf, time, title } from "../format";
import { generic, rowsTable } from "../generic";
import type { Curve } from "../linechart";
import { lineChart } from "../linechart";
import { load, tabs } from "../parts";
import { state } from "../state";
import { t } from "../strings";
import type { PageContext } from "./page";
import { scopeBar, scopeQuery } from "./scope";

const list = (value: Json | undefined): (number | null)[] => (Array.isArray(value) ? value.map((item) => (typeof item === "number" ? item : null)) : []);

/** Curves of a document: arrays beside an array of times, or points with a time each. */
export function curvesOf(document: Row): Curve[] {
  const x = list(document["t_ns"] ?? document["time_ns"] ?? document["t"] ?? document["x"]).map((value) => value ?? 0);
  const curves: Curve[] = [];
  if (x.length > 0) {
    for (const [name, value] of Object.entries(document)) {
      if (["t_ns", "time_ns", "t", "x"].includes(name)) continue;
      if (Array.isArray(value) && value.length === x.length) curves.push({ name: title(name), x, y: list(value) });
      if (isRow(value)) for (const [inner, data] of Object.entries(value)) if (Array.isArray(data) && data.length === x.length) curves.push({ name: title(inner), x, y: list(data) });
      for (const row of rowsOf(value)) {
        const data = row["values"] ?? row["bytes"];
        if (Array.isArray(data) && data.length === x.length) curves.push({ name: textOf(row["name"] ?? row["category"]), x, y: list(data) });
      }
    }
    return curves;
  }
  for (const value of Object.values(document)) {
    const points = rowsOf(value);
    const at = points[0] === undefined ? undefined : ["t_ns", "time_ns", "ts_ns", "t"].find((name) => name in (points[0] ?? {}));
    if (at === undefined) continue;
    for (const name of Object.keys(points[0] ?? {})) {
      if (name === at || !points.some((point) => typeof point[name] === "number")) continue;
      curves.push({ name: title(name), x: points.map((point) => numberOf(point[at])), y: points.map((point) => { const v = point[name]; return typeof v === "number" ? v : null; }) });
    }
  }
  return curves;
}

function curve(document: Row, stacked: boolean): Child[] {
  const nodes: Child[] = [];
  const several = rowsOf(document["curves"] ?? document["ranks"] ?? document["devices"]);
  for (const part of several.length > 0 && several.some((row) => curvesOf(row).length > 0) ? several : [document]) {
    const curves = curvesOf(part);
    if (curves.length === 0) continue;
    const name = ["rank", "device", "device_name"].filter((field) => field in part && typeof part[field] !== "object").map((field) => `${title(field)} ${textOf(part[field])}`).join(" · ");
    nodes.push(name !== "" && h("h3", {}, name), lineChart(curves, { label: `${t("Memory over time")} ${name}`, height: 240, stacked, step: !stacked, showX: time, showY: bytes }).element);
  }
  return nodes;
}

export function memoryPage(root: HTMLElement, { info, signal }: PageContext): void {
  const body = h("div", {});
  const snapshots = Array.isArray(info.run["snapshots"]) ? info.run["snapshots"] : [];
  const fill = (): void => {
    const number = state.get("number", "0");
    body.replaceChildren(scopeBar(info, fill, ["rank", "span"]), tabs(t("Memory"), [
      ["curve", t("Curve"), () => h("div", {},
        load("", "memory/curve", { ...scopeQuery(), points: 1000 }, (document) => curve(document, false), signal),
        load(t("By category"), "memory/categories", scopeQuery(), (document) => [...curve(document, true), ...generic(document, ["curves", "t_ns", "time_ns", "categories_over_time"], "memory-categories")], signal))],
      ["peak", t("At the peak"), () => load("", "memory/peak", scopeQuery(), (document) => generic(document, [], "memory-peak"), signal)],
      ["allocations", t("Allocations"), () => load("", "memory/allocations", { ...scopeQuery(), limit: 20000 }, (document) => [
        rowsTable("allocations", document["rows"] ?? document["allocations"], { sort: "-bytes", bar: "bytes" })], signal)],
      ["snapshots", t("Snapshots"), () => snapshots.length === 0
        ? load("", "memory/snapshot", { number: 0 }, (document) => generic(document, [], "snapshot"), signal)
        : h("div", {},
          !isReport() && select(t("Snapshot"), snapshots.map((name, i) => [String(i), textOf(name)] as const), number, (value) => { state.set({ number: value }); fill(); }),
          load("", "memory/snapshot", { number }, (document) => [...curve(document, false), ...generic(document, [], "snapshot")], signal))],
    ], state.get("tab", "curve"), (tab) => { state.set({ tab }); }));
  };
  root.append(body);
  fill();
}
