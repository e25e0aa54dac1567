// Tables of operators, kernels and modules.
import { isReport } from "../api";
import { h, select } from "../dom";
import { generic, rowsTable } from "../generic";
import { load, tabs } from "../parts";
import { state } from "../state";
import { t } from "../strings";
import type { PageContext } from "./page";
import { scopeBar, scopeQuery } from "./scope";

const limit = 20000;

export function operatorsPage(root: HTMLElement, { info, signal }: PageContext): void {
  const body = h("div", {});
  const fill = (): void => {
    const view = (path: string, bar: string) => (): HTMLElement => {
      const group = state.get("group", "name");
      const query = path === "ops" ? { ...scopeQuery(), group, limit } : { ...scopeQuery(), limit };
      return h("div", {},
        path === "ops" && !isReport() && select(t("Group by"), [["name", t("name")], ["shapes", t("name and shapes")], ["module", t("name and module")], ["stack", t("name and stack")]],
          group, (value) => { state.set({ group: value }); fill(); }),
        load("", path, query, (document) => [rowsTable(path, document["rows"], { bar, sort: `-${bar}`, hidden: ["key", "first_ns", "first_id", "min_ns"] }), ...generic(document, ["rows", "columns", "total", "offset", "limit"], path)], signal));
    };
    body.replaceChildren(scopeBar(info, fill),
      tabs(t("Tables"), [["ops", t("Operators"), view("ops", "self_ns")], ["kernels", t("Kernels"), view("kernels", "total_ns")], ["modules", t("Modules"), view("modules", "total_ns")]],
        state.get("tab", "ops"), (tab) => { state.set({ tab }); }));
  };
  root.append(body);
  fill();
}
