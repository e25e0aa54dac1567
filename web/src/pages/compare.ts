// Two runs beside each other, the largest contribution first.
import { h } from "../dom";
import type { Json, Row } from "../format";
import { rowsOf } from "../format";
import { rowsTable } from "../generic";
import { load, tabs } from "../parts";
import { state } from "../state";
import { t } from "../strings";
import type { PageContext } from "./page";

/** Values of a comparison are times; their names say so here. */
function inTime(value: Json | undefined): Row[] {
  return rowsOf(value).map(({ a, b, delta, ...rest }) => ({ ...rest, a_ns: a ?? null, b_ns: b ?? null, delta_ns: delta ?? null }));
}

export function comparePage(root: HTMLElement, { signal }: PageContext): void {
  const view = (name: string) => (): HTMLElement => load("", "diff", { table: name }, (document) => [
    h("p", { class: "muted" }, t("Times per step and rank; the largest contribution first.")),
    rowsTable(`diff-${name}`, inTime(document["rows"]), { columns: ["key", "a_ns", "b_ns", "delta_ns", "share", "change"] }),
  ], signal);
  root.append(h("h2", {}, t("Comparison")), h("p", { class: "muted" }, t("a is the baseline, b this run.")), tabs(t("Comparison"),
    (["summary", "ops", "kernels", "modules", "comm"] as const).map((name) => [name, t({ summary: "Summary", ops: "Operators", kernels: "Kernels", modules: "Modules", comm: "Communication" }[name]), view(name)] as const),
    state.get("tab", "summary"), (tab) => { state.set({ tab }); }));
}
