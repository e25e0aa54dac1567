// Curves of metrics.jsonl, which go on while the run does.
import { ask, isReport, listen } from "../api";
import { h, replace, select } from "../dom";
import type { Row } from "../format";
import { numberOf, rowsOf, short, show, textOf, title } from "../format";
import { rowsTable } from "../generic";
import type { LineChart } from "../linechart";
import { lineChart } from "../linechart";
import { emptyNote, errorNote } from "../parts";
import { state } from "../state";
import { t } from "../strings";
import type { PageContext } from "./page";

const first = ["loss", "validation_loss", "lr", "grad_norm", "tokens_per_second", "step_seconds", "mfu", "peak_memory_bytes"];
const notCurves = new Set(["step", "time"]);

/** Mean over the last `width` values, with what is missing left out. */
function smooth(values: readonly (number | null)[], width: number): (number | null)[] {
  if (width <= 1) return [...values];
  let sum = 0, count = 0;
  return values.map((value, i) => {
    if (value !== null) { sum += value; ++count; }
    const gone = i >= width ? values[i - width] ?? null : null;
    if (gone !== null) { sum -= gone; --count; }
    return value === null || count === 0 ? null : sum / count;
  });
}

export async function trainingPage(root: HTMLElement, { signal }: PageContext): Promise<void> {
  let id = "0", next = 0;
  let rows: Row[] = [];
  const charts = new Map<string, LineChart>();
  const status = h("p", { class: "muted", attrs: { role: "status" } });
  const grid = h("div", {}), tableBox = h("details", {}, h("summary", {}, t("Table")));
  let width = Math.max(1, state.number("smooth") ?? 1);

  function draw(): void {
    const names = new Set<string>();
    for (const row of rows) for (const [name, value] of Object.entries(row)) if (typeof value === "number" && !notCurves.has(name)) names.add(name);
    const ordered = [...first.filter((name) => names.has(name)), ...[...names].filter((name) => !first.includes(name)).sort()];
    for (const name of ordered) {
      const having = rows.filter((row) => typeof row[name] === "number" && typeof row["step"] === "number");
      const x = having.map((row) => numberOf(row["step"])), y = having.map((row) => numberOf(row[name]));
      const curves = [{ name: title(name), x, y: smooth(y, width) }];
      const known = charts.get(name);
      if (known !== undefined) { known.update(curves); continue; }
      const chart = lineChart(curves, { label: `${title(name)} ${t("by step")}`, height: 180, showX: (step) => `${t("step")} ${short(Math.round(step))}`, showY: (value) => show(name, value) });
      charts.set(name, chart);
      grid.append(h("section", {}, h("h3", {}, title(name)), chart.element));
    }
    const bad = rows.filter((row) => row["loss"] === "NaN" || row["loss"] === "Infinity" || row["loss"] === "-Infinity").length;
    const last = rows[rows.length - 1];
    status.textContent = [t("{n} rows", { n: rows.length }), last === undefined ? "" : `${t("last step")} ${textOf(last["step"])}`,
      bad > 0 ? t("{n} rows with a loss that is not finite", { n: bad }) : "", isReport() ? "" : t("follows the run")].filter((text) => text !== "").join(" · ");
    if (tableBox.open) replace(tableBox, h("summary", {}, t("Table")), rowsTable("metrics", rows, { sort: "-step", height: 320 }));
  }
  tableBox.addEventListener("toggle", () => { if (tableBox.open) draw(); });

  async function catchUp(): Promise<string> {
    for (;;) {
      const answer = await ask("metrics", isReport() ? {} : { id, from: next }, signal);
      const reason = textOf(answer["empty"]);
      if (reason !== "") return reason;
      const from = numberOf(answer["from"]);
      if (from !== next) rows = [];
      rows = rows.concat(rowsOf(answer["rows"]));
      id = textOf(answer["id"]);
      const end = numberOf(answer["next"]);
      const done = end === next || end >= numberOf(answer["size"]) || isReport();
      next = end;
      if (done) return "";
    }
  }

  try {
    const reason = await catchUp();
    if (reason !== "") { root.append(emptyNote(reason)); return; }
  } catch (error) {
    root.append(errorNote(error));
    return;
  }
  root.append(h("h2", {}, t("Training curves")), h("div", { class: "toolbar" },
    select(t("Mean over"), ["1", "5", "20", "100"].map((n) => [n, n === "1" ? t("no smoothing") : t("{n} steps", { n })] as const), String(width), (value) => {
      width = Number(value);
      state.set({ smooth: width > 1 ? width : null });
      draw();
    })), status, grid, tableBox);
  draw();
  let running = false;
  const source = listen({ metrics: () => {
    if (running) return;
    running = true;
    catchUp().then(draw).catch(() => undefined).finally(() => { running = false; });
  } });
  signal.addEventListener("abort", () => { source?.close(); });
}
