// Tables of operators, kernels and modules.
import { isReport } from "../api";
import { h, replace, select } from "../dom";
import { flame } from "../flame";
import type { Child } from "../dom";
import type { Row } from "../format";
import { isRow, short, numberOf, textOf } from "../format";
import { generic, rowsTable } from "../generic";
import { load, tabs } from "../parts";
import { state } from "../state";
import { t } from "../strings";
import type { PageContext } from "./page";
import { scopeBar, scopeQuery } from "./scope";

const limit = 20000;
const first = ["name", "shapes", "module", "class", "calls", "total_ns", "self_ns", "share", "of_peak", "of_nominal_peak", "flops_per_s", "avg_ns"];

/** What the shares of peak are shares of, or why there are none. */
function peakNote(document: Row): Child {
  const one = (name: string, label: string): string => {
    const peak = document[name];
    return isRow(peak) ? `${label} ${short(numberOf(peak["flops_per_s"]) / 1e12)} TFLOP/s (${textOf(peak["source"])})` : "";
  };
  const known = [one("peak", t("peak")), one("nominal_peak", t("nominal peak"))].filter((text) => text !== "");
  const rows = Array.isArray(document["rows"]) ? document["rows"] : [];
  const counted = rows.some((row) => isRow(row) && numberOf(row["flops"]) > 0);
  const words = !counted ? t("No FLOPs: shapes were not recorded; set profile.record_shapes = true")
    : known.length === 0 ? t("No share of peak: the traces do not say what the device can do; start with --peak TFLOPS") : `${t("Shares of peak are of")} ${known.join(" · ")}`;
  return h("p", { class: "muted" }, words);
}

const extra = ["rows", "columns", "total", "offset", "limit", "peak", "nominal_peak"];

export function operatorsPage(root: HTMLElement, { info, signal }: PageContext): void {
  const body = h("div", {});
  const fill = (): void => {
    const view = (path: string, bar: string) => (): HTMLElement => {
      const group = state.get("group", "name");
      const query = path === "ops" ? { ...scopeQuery(), group, limit } : { ...scopeQuery(), limit };
      return h("div", {},
        path === "ops" && !isReport() && select(t("Group by"), [["name", t("name")], ["shapes", t("name and shapes")], ["module", t("name and module")], ["stack", t("name and stack")]],
          group, (value) => { state.set({ group: value }); fill(); }),
        load("", path, query, (document) => [path !== "modules" && peakNote(document),
          rowsTable(path, document["rows"], { bar, sort: `-${bar}`, columns: first, hidden: ["key", "first_ns", "first_id", "min_ns", "max_ns", "p50_ns", "flops"] }), ...generic(document, extra, path)], signal));
    };
    const stacks = (): HTMLElement => {
      const by = state.get("by");
      return h("div", {}, select(t("Stacks of"), [["", t("all calls of the host")], ["modules", t("modules")]], by, (value) => { state.set({ by: value }); fill(); }),
        load("", "flame", { ...scopeQuery(), by }, (document) => [flame(document)], signal));
    };
    replace(body, scopeBar(info, fill),
      tabs(t("Tables"), [["ops", t("Operators"), view("ops", "self_ns")], ["kernels", t("Kernels"), view("kernels", "total_ns")], ["modules", t("Modules"), view("modules", "total_ns")], ["flame", t("Flame"), stacks]],
        state.get("tab", "ops"), (tab) => { state.set({ tab }); }));
  };
  root.append(body);
  fill();
}
