// Who talks to whom, how fast, and who waits for whom.
import { isReport } from "../api";
import { h, replace, select } from "../dom";
import { heatMap, rankName, stackedBars } from "../bars";
import type { Child } from "../dom";
import type { Row } from "../format";
import { bytes, exact, numberOf, rowsOf, short, textOf, time } from "../format";
import { generic, rowsTable } from "../generic";
import { load, tabs } from "../parts";
import { state } from "../state";
import { t } from "../strings";
import type { PageContext } from "./page";
import { scopeBar, scopeQuery } from "./scope";

const metrics = [["bandwidth", "Bandwidth"], ["bytes", "Bytes"], ["time_ns", "Time"], ["count", "Messages"]] as const;

function matrix(document: Row): HTMLElement {
  const cells = rowsOf(document["cells"]);
  const ranks = (Array.isArray(document["ranks"]) ? document["ranks"] : []).map((rank) => numberOf(rank));
  const box = h("div", {});
  const cellAt = new Map(cells.map((cell) => [`${textOf(cell["src"])}/${textOf(cell["dst"])}`, cell]));
  const draw = (): void => {
    const metric = state.get("metric", "bandwidth");
    const at = (r: number, c: number): Row | undefined => cellAt.get(`${ranks[r] ?? ""}/${ranks[c] ?? ""}`);
    const text = (value: number): string => metric === "bandwidth" ? short(value / 1e9) : metric === "bytes" ? bytes(value) : metric === "time_ns" ? time(value) : short(value);
    replace(box,
      select(t("Show"), metrics.map(([id, name]) => [id, t(name)] as const), metric, (value) => { state.set({ metric: value }); draw(); }),
      metric === "bandwidth" && h("span", { class: "muted" }, "GB/s"),
      heatMap({
        label: t("Communication between ranks"), rows: ranks.map(String), columns: ranks.map(String), rowTitle: t("from"), columnTitle: t("to"),
        value: (r, c) => { const value = at(r, c)?.[metric]; return typeof value === "number" ? value : null; },
        show: text,
        tip: (r, c) => { const cell = at(r, c); return cell === undefined ? "" : Object.entries(cell).map(([name, value]) => `${name}: ${exact(name, value)}`).join("\n"); },
      }),
      rowsTable("comm-matrix", cells, { sort: "bandwidth", height: 260 }));
  };
  draw();
  return box;
}

const waitParts = [{ field: "transit_ns", label: "transfer" }, { field: "wait_ns", label: "wait" }];

/** Of each rank: transferring against waiting for the last one to come. The rank that others wait for waits least. */
function waiting(document: Row): Child[] {
  const rows = rowsOf(document["rows"]);
  return [
    h("p", { class: "muted" }, t("Who waits least and comes last is the one that the others wait for.")),
    rows.length > 0 && stackedBars(rows.slice(0, 200), { label: t("Transfer and wait by rank"), parts: waitParts, name: rankName }),
    rowsTable("comm-ranks", rows, { columns: ["rank", "calls", "elapsed_ns", "transit_ns", "wait_ns", "sync_ratio", "late_ns", "last_share"] }),
  ];
}

export function communicationPage(root: HTMLElement, { info, signal }: PageContext): void {
  const body = h("div", {});
  const fill = (groups: readonly string[], types: readonly string[]): void => {
    const query = { ...scopeQuery(), tag: state.get("tag"), type: state.get("type") };
    const again = (): void => { fill(groups, types); };
    const bar = scopeBar(info, again, ["step", "span"]);
    const all: readonly (readonly [string, string])[] = [["", t("all")]];
    if (groups.length > 0 && !isReport()) {
      bar.append(select(t("Group"), [...all, ...groups.map((name) => [name, name] as const)], state.get("tag"), (value) => { state.set({ tag: value }); again(); }));
    }
    if (types.length > 1 && !isReport()) {
      bar.append(select(t("Kind"), [...all, ...types.map((name) => [name, name] as const)], state.get("type"), (value) => { state.set({ type: value }); again(); }));
    }
    replace(body, bar, tabs(t("Communication"), [
      ["matrix", t("Matrix"), () => load("", "comm/matrix", query, (document) => [matrix(document)], signal)],
      ["ranks", t("Waiting by rank"), () => load("", "comm/ranks", { ...scopeQuery(), tag: state.get("tag") }, waiting, signal)],
      ["links", t("Links"), () => load("", "comm/links", scopeQuery(), (document) => generic(document, [], "comm-links"), signal)],
      ["calls", t("Calls"), () => load("", "comm/calls", { ...query, limit: 20000 }, (document) => [
        rowsTable("comm-calls", document["rows"]), ...generic(document, ["rows", "calls", "offset", "limit", "columns", "total"], "comm")], signal)],
      ["groups", t("Groups"), () => load("", "comm/groups", scopeQuery(), (document) => generic({ ...document, groups: rowsOf(document["groups"]).map(({ size, ...rest }): Row => ({ ...rest, ranks: size ?? null })) }, ["rows"], "comm-groups"), signal)],
      ["alignment", t("Clocks"), () => load("", "comm/alignment", scopeQuery(), (document) => generic(document, [], "comm-alignment"), signal)],
    ], state.get("tab", "matrix"), (tab) => { state.set({ tab }); }));
  };
  root.append(body);
  root.append(load("", "comm/groups", scopeQuery(), (document) => {
    const rows = rowsOf(document["groups"]);
    const values = (name: string): string[] => [...new Set(rows.map((row) => textOf(row[name])).filter((text) => text !== ""))];
    fill(values("group"), values("type"));
    return [];
  }, signal));
}

