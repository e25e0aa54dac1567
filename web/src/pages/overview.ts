// What kind of run this is, how each rank and step spends its time, and what stands out.
import { isReport } from "../api";
import { h, replace } from "../dom";
import { stackedBars, timeParts } from "../bars";
import type { Child } from "../dom";
import type { Row } from "../format";
import { bytes, numberOf, rowsOf, show, textOf, time } from "../format";
import { facts, load, tabs } from "../parts";
import { rowsTable } from "../generic";
import { state } from "../state";
import { t } from "../strings";
import { findingList } from "./findings";
import type { PageContext } from "./page";
import { scopeBar, scopeQuery } from "./scope";

/** The classes that add up to a step. */
const classes = ["preparing_ns", "compute_only_ns", "overlapped_ns", "exposed_comm_ns", "free_ns"];

function card(label: string, value: string): HTMLElement {
  return h("div", { class: "card" }, h("span", { class: "muted" }, label), h("b", {}, value));
}

function facts1(context: PageContext): Child[] {
  const { run } = context.info;
  const files = rowsOf(run["files"]);
  const metadata = run["model"];
  return [
    h("div", { class: "cards" },
      card(t("Ranks"), `${context.info.ranks.length}${numberOf(run["world_size"]) > context.info.ranks.length ? ` / ${show("", run["world_size"])}` : ""}`),
      card(t("Steps"), String(context.info.steps.length)), card(t("Time"), time(numberOf(run["duration_ns"]))),
      card(t("Events"), files.reduce((sum, file) => sum + numberOf(file["events"]), 0).toLocaleString("en")),
      card(t("Traces"), `${files.length} · ${bytes(files.reduce((sum, file) => sum + numberOf(file["bytes"]), 0))}`),
      textOf(run["device"]) !== "" && card(t("Measured on"), textOf(run["device"]) === "cpu" ? t("the CPU") : t("the device"))),
    typeof metadata === "object" && metadata !== null && !Array.isArray(metadata) && facts(metadata, undefined, "wide"),
  ];
}

export function barsOf(rows: Row[], by: string, onOpen?: (row: Row) => void): Child[] {
  const first = rows[0];
  const parts = timeParts(first, classes);
  if (first === undefined || parts.length === 0) return [];
  const name = (row: Row): string => [by !== "step" || rows.some((r) => r["rank"] !== first["rank"]) ? `${t("rank")} ${textOf(row["rank"])}` : "",
    "step" in row && row["step"] !== null ? `${t("step")} ${textOf(row["step"])}` : ""].filter((text) => text !== "").join(" ");
  return [stackedBars(rows.slice(0, 200), { label: t("Time by class"), parts, name, ...(onOpen === undefined ? {} : { onOpen }) })];
}

export function overviewPage(root: HTMLElement, context: PageContext): void {
  const { info, signal } = context;
  const body = h("div", {});
  const fill = (): void => {
    const view = (by: string) => (): HTMLElement => load("", "summary", { ...scopeQuery(), by }, (document) => {
      const rows = rowsOf(document["rows"]);
      const open = (row: Row): void => { state.set({ rank: textOf(row["rank"]), by: "step" }); fill(); };
      return [...barsOf(rows, by, by === "rank" && !isReport() ? open : undefined), rowsTable(`summary-${by}`, rows, { height: 300, columns: ["rank", "step", "mfu", "total_ns"], hidden: ["begin_ns", "stage_ns", "exposed_without_bubble_ns", "memory_copy_ns", "sync_ns"] })];
    }, signal);
    replace(body, 
      scopeBar(info, fill),
      tabs(t("Summary"), [["rank", t("By rank"), view("rank")], ["step", t("By step"), view("step")]], state.get("by", "rank"), (by) => { state.set({ by }); }),
      load(t("Findings"), "findings", scopeQuery(), findingList, signal));
  };
  root.append(h("h2", {}, t("Run")), ...facts1(context).filter((node): node is Node => node instanceof Node), body);
  fill();
}
