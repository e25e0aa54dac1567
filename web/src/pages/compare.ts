// Two runs beside each other, the largest contribution first.
import { h } from "../dom";
import { generic, rowsTable } from "../generic";
import { load, tabs } from "../parts";
import { state } from "../state";
import { t } from "../strings";
import type { PageContext } from "./page";

export function comparePage(root: HTMLElement, { signal }: PageContext): void {
  const view = (name: string) => (): HTMLElement => load("", "diff", { table: name }, (document) => [
    ...generic(document, ["rows", "table", "columns"], `diff-${name}`),
    rowsTable(`diff-${name}`, document["rows"], { columns: ["key", "a", "b", "delta", "share", "change"] }),
  ], signal);
  root.append(h("h2", {}, t("Comparison")), h("p", { class: "muted" }, t("a is the baseline, b this run.")), tabs(t("Comparison"),
    (["summary", "ops", "kernels", "modules", "comm"] as const).map((name) => [name, t({ summary: "Summary", ops: "Operators", kernels: "Kernels", modules: "Modules", comm: "Communication" }[name]), view(name)] as const),
    state.get("tab", "summary"), (tab) => { state.set({ tab }); }));
}
