// Memory over time by category, what is alive at the peak, and allocator snapshots.
import { isReport } from "../api";
import { h, replace, select } from "../dom";
import type { Child } from "../dom";
import type { Json, Row } from "../format";
import { bytes, isRow, numberOf, rowsOf, textOf, time } from "../format";
import { stackedBars } from "../bars";
import { generic, rowsTable } from "../generic";
import type { Curve } from "../linechart";
import { lineChart } from "../linechart";
import { facts, load, tabs } from "../parts";
import { state } from "../state";
import { t } from "../strings";
import type { PageContext } from "./page";
import { scopeBar, scopeQuery } from "./scope";

const numbers = (value: Json | undefined): (number | null)[] => (Array.isArray(value) ? value.map((item) => (typeof item === "number" ? item : null)) : []);

function curve(document: Row): Child[] {
  const points = rowsOf(document["points"]);
  const x = points.map((point) => numberOf(point["t"]));
  const column = (name: string): (number | null)[] => points.map((point) => { const value = point[name]; return typeof value === "number" && value >= 0 ? value : null; });
  const whole: Curve[] = ["allocated", "reserved"].map((name) => ({ name, x, y: column(name) })).filter((one) => one.y.some((y) => (y ?? 0) > 0));
  const categories = isRow(document["categories"]) ? document["categories"] : {};
  const stacked: Curve[] = Object.entries(categories).map(([name, values]) => ({ name, x, y: numbers(values) })).filter((one) => one.y.some((y) => (y ?? 0) > 0));
  const peak = document["peak"];
  return [
    document["device"] !== undefined && h("p", { class: "muted" }, `${t("rank")} ${textOf(document["rank"])} · ${textOf(document["device"])}`),
    isRow(peak) && facts(peak),
    lineChart(whole, { label: t("Memory over time"), height: 200, step: true, showX: time, showY: bytes, unit: 1 << 20 }).element,
    stacked.length > 0 && h("h3", {}, t("By category")),
    stacked.length > 0 && lineChart(stacked, { label: t("By category"), height: 240, stacked: true, showX: time, showY: bytes, unit: 1 << 20 }).element,
  ];
}

function peak(document: Row): Child[] {
  const categories = isRow(document["categories"]) ? document["categories"] : {};
  const parts = Object.keys(categories).sort((a, b) => numberOf(categories[b]) - numberOf(categories[a]));
  const row: Row = Object.fromEntries(parts.map((name) => [`${name}_bytes`, categories[name] ?? null]));
  return [
    parts.length > 0 && stackedBars([row], { label: t("At the peak"), parts: parts.map((name) => ({ field: `${name}_bytes`, label: name })), name: () => t("peak") }),
    ...generic(document, ["categories", "rows", "layers"], "memory-peak"),
    rowsOf(document["layers"]).length > 0 && h("h3", {}, t("By layer")),
    rowsOf(document["layers"]).length > 0 && rowsTable("memory-layers", document["layers"], { bar: "bytes", sort: "-bytes", height: 300 }),
    h("h3", {}, t("Blocks")), rowsTable("memory-peak", document["rows"], { bar: "bytes", sort: "-bytes", height: 360 }),
  ];
}

function snapshot(document: Row): Child[] {
  const over = isRow(document["curve"]) ? document["curve"] : {}, top = document["peak"];
  const devices = rowsOf(document["devices"]);
  return [
    isRow(document["about"]) && facts(document["about"]),
    rowsOf(over["points"]).length > 1 && h("div", {}, ...curve(over)),
    isRow(top) && h("h3", {}, t("At the peak")), isRow(top) && h("div", {}, ...peak(top)),
    ...generic(document, ["about", "curve", "peak", "timeline", "rows", "devices"], "snapshot"),
    ...devices.flatMap((device) => [h("h3", {}, `${t("Device")} ${textOf(device["device"])}`), facts(device, ["reserved", "allocated", "largest_free"]),
      rowsTable("segments", device["segments"], { sort: "-total", height: 240 })]),
  ];
}

export function memoryPage(root: HTMLElement, { info, signal }: PageContext): void {
  const body = h("div", {});
  const snapshots = Array.isArray(info.run["snapshots"]) ? info.run["snapshots"] : [];
  const fill = (): void => {
    const number = state.get("number", "0");
    replace(body, scopeBar(info, fill, ["rank", "span"]), tabs(t("Memory"), [
      ["curve", t("Curve"), () => h("div", {},
        load("", "memory/curve", { ...scopeQuery(), points: 1000 }, curve, signal),
        load(t("Categories at the peak"), "memory/categories", scopeQuery(), (document) => [rowsTable("memory-categories", document["rows"], { bar: "bytes" })], signal))],
      ["peak", t("At the peak"), () => load("", "memory/peak", scopeQuery(), peak, signal)],
      ["allocations", t("Allocations"), () => load("", "memory/allocations", { ...scopeQuery(), limit: 20000 }, (document) => [
        rowsTable("allocations", document["rows"], { sort: "-bytes", bar: "bytes" })], signal)],
      ["snapshots", t("Snapshots"), () => snapshots.length === 0
        ? load("", "memory/snapshot", { number: 0 }, snapshot, signal)
        : h("div", {},
          !isReport() && select(t("Snapshot"), snapshots.map((name, i) => [String(i), textOf(name)] as const), number, (value) => { state.set({ number: value }); fill(); }),
          load("", "memory/snapshot", { number }, snapshot, signal))],
    ], state.get("tab", "curve"), (tab) => { state.set({ tab }); }));
  };
  root.append(body);
  fill();
}
