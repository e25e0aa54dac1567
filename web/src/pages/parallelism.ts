// The ranks in the run's own order, coloured by what they do, and the pipeline's chart against theory.
import { isReport } from "../api";
import { h, replace, select } from "../dom";
import { plot, ticks } from "../canvas";
import type { Child } from "../dom";
import type { Json, Row } from "../format";
import { exact, isRow, numberOf, percent, rowsOf, show, textOf, time, title } from "../format";
import { generic, rowsTable } from "../generic";
import { facts, load, tabs } from "../parts";
import { state } from "../state";
import { t } from "../strings";
import { color, series } from "../theme";
import type { PageContext } from "./page";
import { scopeBar, scopeQuery } from "./scope";

const groupAxes = ["tensor", "context", "data", "pipeline"];

function layout(document: Row, summary: Row): Child[] {
  const cells = rowsOf(document["cells"]);
  const times = new Map<string, Row>();
  for (const row of rowsOf(summary["rows"])) times.set(textOf(row["rank"]), row);
  const joined = cells.map((cell): Row => ({ ...cell, ...(times.get(textOf(cell["rank"])) ?? {}) }));
  const names = [...new Set(joined.flatMap((cell) => Object.keys(cell)))].filter((name) => name !== "rank" && name !== "step" && joined.some((cell) => typeof cell[name] === "number"));
  const axes = groupAxes.filter((axis) => names.includes(axis));
  const box = h("div", {});
  const draw = (): void => {
    const metric = names.includes(state.get("metric")) ? state.get("metric") : names.find((name) => name.endsWith("_ns")) ?? names[0] ?? "";
    const values = joined.map((cell) => cell[metric]).filter((value): value is number => typeof value === "number");
    const low = Math.min(...values), high = Math.max(...values);
    const columns = Math.min(joined.length, Math.max(1, widthOf(document)));
    const grid = h("div", { class: "rank-grid" });
    grid.style.gridTemplateColumns = `repeat(${columns}, minmax(86px, 1fr))`;
    const boxes = joined.map((cell) => {
      const value = cell[metric];
      const part = typeof value === "number" && high > low ? (value - low) / (high - low) : 0;
      const element = h("button", { class: "rank-cell", attrs: { type: "button" }, title: Object.entries(cell).map(([name, v]) => `${title(name)}: ${exact(name, v)}`).join("\n") },
        `${t("rank")} ${textOf(cell["rank"])}`, h("small", {}, show(metric, value)), h("small", {}, axes.map((axis) => `${axis[0] ?? ""}${textOf(cell[axis])}`).join(" ")));
      element.style.background = `color-mix(in srgb, ${color("heat")} ${Math.round(part * 100)}%, ${color("page")})`;
      element.style.color = part > 0.55 ? color("on-heat") : color("text");
      return element;
    });
    // Pointing at a rank marks those that share its groups.
    boxes.forEach((element, i) => {
      const mark = (on: boolean): void => {
        boxes.forEach((other, j) => {
          const differing = axes.filter((axis) => joined[i]?.[axis] !== joined[j]?.[axis]);
          other.classList.toggle("same", on && differing.length <= 1);
        });
      };
      element.addEventListener("mouseenter", () => { mark(true); });
      element.addEventListener("focus", () => { mark(true); });
      element.addEventListener("mouseleave", () => { mark(false); });
      element.addEventListener("blur", () => { mark(false); });
      // A rank's steps, one by one; a saved report has them only all together.
      if (!isReport()) element.addEventListener("click", () => { state.go("overview", { rank: textOf(joined[i]?.["rank"]), by: "step" }); });
    });
    grid.append(...boxes);
    replace(box, names.length > 0 && select(t("Colour by"), names.map((name) => [name, title(name)] as const), metric, (value) => { state.set({ metric: value }); draw(); }),
      h("span", { class: "muted" }, values.length > 0 ? `${show(metric, low)} – ${show(metric, high)}` : ""), grid);
  };
  draw();
  return [box, rowsTable("layout", joined, { height: 240 }), ...generic(document, ["cells", "rows", "source"], "layout")];
}

/** Ranks a line: the innermost axes, up to eight or so. */
function widthOf(document: Row): number {
  const sizes = isRow(document["sizes"]) ? Object.values(document["sizes"]).map((size) => numberOf(size, 1)) : [];
  let width = 1;
  for (const size of sizes.slice(0, -1)) if (width * size <= 16) width *= size;
  return width > 1 ? width : 8;
}

interface Action { line: string; start: number; end: number; kind: string; micro: number; row: Row }

/** Actions of all stages; replicas of one stage have a line each. */
function actionsOf(document: Row): Action[] {
  return rowsOf(document["stages"]).flatMap((stage) => rowsOf(stage["actions"]).map((row) => ({
    line: `${t("stage")} ${textOf(stage["stage"])} · ${t("rank")} ${textOf(stage["rank"])}`, start: numberOf(row["begin_ns"]), end: numberOf(row["end_ns"]),
    kind: textOf(row["kind"]), micro: numberOf(row["micro_batch"]), row,
  })));
}

/** `length`: of the axis in ns, so that two charts can share one. */
function gantt(label: string, actions: readonly Action[], length: number): HTMLElement {
  const lines = [...new Set(actions.map((action) => action.line))];
  const t0 = actions.reduce((least, action) => Math.min(least, action.start), Infinity), t1 = t0 + Math.max(1, length);
  const left = 112, bar = 30;
  const x = (at: number, width: number): number => left + ((at - t0) / Math.max(1, t1 - t0)) * (width - left - 8);
  const chart = plot(label, lines.length * bar + 22, (context, width, height) => {
    context.textBaseline = "middle";
    context.fillStyle = color("muted");
    context.textAlign = "center";
    for (const at of ticks(0, t1 - t0, 7)) context.fillText(time(at), x(at + t0, width), height - 8);
    lines.forEach((line, s) => {
      context.textAlign = "right";
      context.fillStyle = color("text");
      context.fillText(line, left - 6, s * bar + bar / 2);
      context.fillStyle = color("panel");
      context.fillRect(left, s * bar + 3, width - left - 8, bar - 6);
    });
    for (const action of actions) {
      const y = lines.indexOf(action.line) * bar, forward = action.kind.startsWith("F");
      const from = x(action.start, width), length = Math.max(1, x(action.end, width) - from);
      // Forward stands in the upper part, backward over the whole height: not told by colour alone.
      const top = y + (forward ? 3 : 8), high = bar - 11;
      context.fillStyle = series(action.micro);
      context.globalAlpha = forward ? 0.75 : 1;
      context.fillRect(from, top, length, high);
      context.globalAlpha = 1;
      context.strokeStyle = color("page");
      context.strokeRect(from + 0.5, top + 0.5, length, high);
      if (length > 22) {
        context.fillStyle = color("page");
        context.textAlign = "center";
        context.fillText(`${action.kind[0] ?? ""}${action.micro}`, from + length / 2, top + high / 2, length - 2);
      }
    }
  });
  chart.canvas.addEventListener("mousemove", (event) => {
    const box = chart.canvas.getBoundingClientRect();
    const line = lines[Math.floor((event.clientY - box.top) / bar)];
    const at = t0 + ((event.clientX - box.left - left) / (box.width - left - 8)) * (t1 - t0);
    const hit = actions.find((action) => action.line === line && action.start <= at && at <= action.end);
    chart.canvas.title = hit === undefined ? "" : Object.entries(hit.row).map(([name, value]) => `${title(name)}: ${show(name, value)}`).join("\n");
  });
  return chart.element;
}

function pipeline(document: Row): Child[] {
  const actions = actionsOf(document).slice(0, 20000);
  const theory = isRow(document["theory"]) ? document["theory"] : {};
  const card = (label: string, value: string): HTMLElement => h("div", { class: "card" }, h("span", { class: "muted" }, label), h("b", {}, value));
  const share = (value: Json | undefined): string => (typeof value === "number" ? percent(value) : "–");
  const ideal = isRow(document["ideal"]) ? document["ideal"] : {};
  const best = actionsOf(ideal).slice(0, 20000);
  const axis = Math.max(numberOf(document["pipe_ns"]), numberOf(ideal["pipe_ns"]));
  const gaps = rowsOf(document["stages"]).flatMap((stage) => rowsOf(stage["gaps"]).map((gap): Row => ({ stage: stage["stage"] ?? null, ...gap })));
  return [
    h("div", { class: "cards" }, card(t("Step"), textOf(document["step"])), card(t("Bubble, measured"), share(document["bubble_share"])),
      card(t("Bubble, theory"), share(theory["bubble_share"])),
      card(t("Bubble, these times"), share(ideal["bubble_share"])), card(t("Excess"), share(document["excess"])), card(t("Time"), time(numberOf(document["pipe_ns"])))),
    facts(theory, ["schedule", "stages", "micro_batches", "chunks"]),
    actions.length > 0 && h("h3", {}, t("Measured")),
    actions.length > 0 && gantt(t("Pipeline as measured, one line a stage and rank"), actions, axis),
    best.length > 0 && h("h3", {}, t("Without links and noise")),
    best.length > 0 && h("p", { class: "muted" }, t("The same actions in the same order, each as long as the median of its like, begun as soon as what it needs is done.")),
    best.length > 0 && gantt(t("Pipeline without links and noise, one line a stage"), best, axis),
    h("h3", {}, t("Stages")), rowsTable("pipeline-stages", document["stages"], { height: 240 }),
    gaps.length > 0 && h("h3", {}, t("Gaps")), gaps.length > 0 && rowsTable("pipeline-gaps", gaps, { height: 200 }),
    actions.length > 0 && h("details", {}, h("summary", {}, t("Actions")), rowsTable("pipeline-actions", actions.map((action) => action.row), { height: 260 })),
  ];
}

export function parallelismPage(root: HTMLElement, { info, signal }: PageContext): void {
  const body = h("div", {});
  const fill = (): void => {
    replace(body, scopeBar(info, fill, ["step", "span"]), tabs(t("Parallelism"), [
      ["layout", t("Rank grid"), () => load("", "parallel/layout", {}, (document) => {
        const box = h("div", {});
        box.append(load("", "summary", { ...scopeQuery(), by: "rank" }, (summary) => layout(document, summary), signal));
        return [box];
      }, signal)],
      ["pipeline", t("Pipeline"), () => load("", "pipeline", scopeQuery(), pipeline, signal)],
    ], state.get("tab", "layout"), (tab) => { state.set({ tab }); }));
  };
  root.append(body);
  fill();
}

