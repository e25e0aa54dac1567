// Stacked bars, one a row: how each rank or step spends its time; and a matrix of cells.
import { hatch, plot } from "./canvas";
import { Choice, outline } from "./choice";
import { h } from "./dom";
import type { Row } from "./format";
import { numberOf, show, textOf, title } from "./format";
import { color, series } from "./theme";

export interface Part { field: string; label: string }

export interface BarOptions {
  label: string;
  parts: readonly Part[];
  name: (row: Row) => string;
  total?: string;                       // field with the total, for the share in the tooltip
  onOpen?: (row: Row) => void;
}

const barHeight = 22, left = 90, right = 80;

export function stackedBars(rows: readonly Row[], options: BarOptions): HTMLElement {
  const sum = (row: Row): number => options.parts.reduce((all, part) => all + Math.max(0, numberOf(row[part.field])), 0);
  const most = Math.max(1e-9, ...rows.map(sum));
  const describe = (row: Row): string => [options.name(row), ...options.parts.map((part) =>
    `${part.label}: ${show(part.field, row[part.field])} (${sum(row) > 0 ? ((numberOf(row[part.field]) / sum(row)) * 100).toFixed(1) : "0"} %)`)].join("\n");
  const choice = new Choice(rows.length, 1, (r) => describe(rows[r] ?? {}), (r) => { const row = rows[r]; if (row !== undefined) options.onOpen?.(row); });
  const chart = plot(options.label, rows.length * barHeight + 4, (context, width) => {
    const scale = (width - left - right) / most;
    context.textBaseline = "middle";
    rows.forEach((row, i) => {
      const y = i * barHeight + 3;
      context.fillStyle = color("text");
      context.textAlign = "right";
      context.fillText(options.name(row), left - 8, y + 8, left - 12);
      let x = left;
      options.parts.forEach((part, p) => {
        const length = Math.max(0, numberOf(row[part.field])) * scale;
        context.fillStyle = series(p);
        context.fillRect(x, y, length, barHeight - 6);
        hatch(context, x, y, length, barHeight - 6, p % 5, color("page"));
        x += length;
      });
      context.fillStyle = color("muted");
      context.textAlign = "left";
      context.fillText(show(options.parts[0]?.field ?? "", sum(row)), x + 6, y + 8);
      if (choice.chosen?.[0] === i) outline(context, 0, i * barHeight, width, barHeight);
    });
  });
  choice.attach(chart.canvas, chart.redraw);
  const at = (event: MouseEvent): Row | undefined => {
    const box = chart.canvas.getBoundingClientRect();
    return rows[Math.floor((event.clientY - box.top) / barHeight)];
  };
  chart.canvas.addEventListener("mousemove", (event) => {
    const row = at(event);
    chart.canvas.title = row === undefined ? "" : describe(row);
  });
  chart.canvas.addEventListener("click", (event) => { const row = at(event); if (row !== undefined) options.onOpen?.(row); });
  const legend = h("div", { class: "legend" }, ...options.parts.map((part, i) => {
    const key = h("span", { class: `key static pattern${i % 5}` }, part.label);
    key.style.setProperty("--key", series(i));
    return key;
  }));
  return h("div", { class: "chart" }, legend, chart.element, choice.words);
}

/** A matrix of cells; darker is more; the number stands in the cell when there is room. */
export function heatMap(options: {
  label: string; rows: readonly string[]; columns: readonly string[];
  value: (row: number, column: number) => number | null;
  show: (value: number) => string;
  tip: (row: number, column: number) => string;
  rowTitle: string; columnTitle: string;
  onOpen?: (row: number, column: number) => void;
}): HTMLElement {
  const gutter = 70, head = 34;
  const size = Math.max(14, Math.min(64, Math.floor(640 / Math.max(1, options.columns.length))));
  const high = Math.min(size, 36);
  let most = 0;
  for (let r = 0; r < options.rows.length; ++r) {
    for (let c = 0; c < options.columns.length; ++c) most = Math.max(most, options.value(r, c) ?? 0);
  }
  const describe = (r: number, c: number): string => [`${options.rows[r] ?? ""} → ${options.columns[c] ?? ""}`, options.tip(r, c)].filter((text) => text !== "").join("\n");
  const choice = new Choice(options.rows.length, options.columns.length, describe, (r, c) => { options.onOpen?.(r, c); });
  const chart = plot(options.label, head + options.rows.length * high + 4, (context) => {
    context.textBaseline = "middle";
    context.fillStyle = color("muted");
    context.textAlign = "left";
    context.fillText(`${options.rowTitle} ↓   ${options.columnTitle} →`, 2, 8);
    context.textAlign = "center";
    options.columns.forEach((name, c) => { context.fillText(name, gutter + (c + 0.5) * size, head - 9, size - 2); });
    context.textAlign = "right";
    options.rows.forEach((name, r) => { context.fillText(name, gutter - 6, head + (r + 0.5) * high, gutter - 8); });
    context.textAlign = "center";
    for (let r = 0; r < options.rows.length; ++r) {
      for (let c = 0; c < options.columns.length; ++c) {
        const value = options.value(r, c);
        const x = gutter + c * size, y = head + r * high;
        if (value === null) {
          context.strokeStyle = color("line");
          context.strokeRect(x + 1.5, y + 1.5, size - 3, high - 3);
          continue;
        }
        const part = most > 0 ? value / most : 0;
        context.fillStyle = color("heat");
        context.globalAlpha = 0.08 + 0.92 * part;
        context.fillRect(x + 1, y + 1, size - 2, high - 2);
        context.globalAlpha = 1;
        if (size >= 34) {
          context.fillStyle = part > 0.5 ? color("on-heat") : color("text");
          context.fillText(options.show(value), x + size / 2, y + high / 2, size - 4);
        }
      }
    }
    if (choice.chosen !== null) outline(context, gutter + choice.chosen[1] * size, head + choice.chosen[0] * high, size, high);
  });
  choice.attach(chart.canvas, chart.redraw);
  const cell = (event: MouseEvent): [number, number] | null => {
    const box = chart.canvas.getBoundingClientRect();
    const c = Math.floor((event.clientX - box.left - gutter) / size), r = Math.floor((event.clientY - box.top - head) / high);
    return r >= 0 && c >= 0 && r < options.rows.length && c < options.columns.length ? [r, c] : null;
  };
  chart.canvas.addEventListener("mousemove", (event) => {
    const at = cell(event);
    chart.canvas.title = at === null ? "" : options.tip(...at);
  });
  chart.canvas.addEventListener("click", (event) => { const at = cell(event); if (at !== null) options.onOpen?.(...at); });
  return h("div", { class: "chart" }, chart.element, choice.words);
}

/** Fields of the rows that are times and are not the total; what a chart can stack when nothing is said. */
export function timeParts(row: Row | undefined, fields: readonly string[]): Part[] {
  return fields.filter((field) => row !== undefined && field in row).map((field) => ({ field, label: title(field) }));
}

export const rankName = (row: Row): string => `rank ${textOf(row["rank"])}`;
