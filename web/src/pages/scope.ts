// Choice of rank and step that many pages share; it stands in the address.
import type { Query } from "../api";
import { isReport } from "../api";
import { h, select } from "../dom";
import type { Row } from "../format";
import { rowsOf, textOf } from "../format";
import { state } from "../state";
import { t } from "../strings";

export interface RunInfo { run: Row; ranks: string[]; steps: string[]; spans: string[] }

export function runInfo(runs: Row): RunInfo {
  const run = rowsOf(runs["runs"])[0] ?? {};
  const list = (value: unknown): string[] => (Array.isArray(value) ? value.map((item) => textOf(item as number)) : []);
  const spans = rowsOf(run["spans"]);
  const steps = new Set(spans.flatMap((span) => list(span["steps"])));
  return { run, ranks: list(run["ranks"]), steps: [...steps], spans: spans.map((span) => textOf(span["span"])) };
}

/** What the address says of rank, step and collection; a saved report has answers about everything only. */
export function scopeQuery(): Query {
  if (isReport()) return {};
  return { rank: state.get("rank"), step: state.get("step"), span: state.get("span") };
}

/** Selectors; `changed` fills the page anew. A saved report has one scope only: everything. */
export function scopeBar(info: RunInfo, changed: () => void, which: readonly ("rank" | "step" | "span")[] = ["rank", "step", "span"]): HTMLElement {
  const bar = h("div", { class: "toolbar" });
  if (isReport()) return bar;
  const choice = (name: "rank" | "step" | "span", label: string, values: string[], all: string): void => {
    if (!which.includes(name) || values.length < 2) return;
    bar.append(select(label, [["", all], ...values.map((value) => [value, value] as const)], state.get(name), (value) => {
      state.set({ [name]: value === "" ? null : value });
      changed();
    }));
  };
  choice("rank", t("Rank"), info.ranks, t("all"));
  choice("step", t("Step"), info.steps, t("all"));
  choice("span", t("Collection"), info.spans, t("the last"));
  return bar;
}
