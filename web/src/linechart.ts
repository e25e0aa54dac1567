// Curves over one axis, with a cross-hair that reads all of them, and zoom by dragging.
import { plot, ticks } from "./canvas";
import { button, h, replace } from "./dom";
import { color, series } from "./theme";
import { t } from "./strings";

export interface Curve { name: string; x: readonly number[]; y: readonly (number | null)[] }
export interface LineOptions {
  label: string;
  height?: number;
  stacked?: boolean;
  showX: (x: number) => string;
  showY: (y: number) => string;
  unit?: number;                        // ticks are round multiples of it, such as MiB
  step?: boolean;                       // a value holds until the next
}

export interface LineChart { element: HTMLElement; update: (curves: Curve[]) => void }

function nearest(x: readonly number[], at: number): number {
  let low = 0, high = x.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((x[middle] ?? 0) < at) low = middle + 1; else high = middle;
  }
  const before = x[low - 1], after = x[low];
  return before !== undefined && (after === undefined || at - before < after - at) ? low - 1 : low;
}

export function lineChart(start: Curve[], options: LineOptions): LineChart {
  let curves = start;
  let range: [number, number] | null = null;
  let hover: number | null = null;
  let drag: number | null = null;
  const hidden = new Set<string>();
  const left = 64, right = 12, top = 8, bottom = 20;
  const readout = h("div", { class: "readout", attrs: { "aria-live": "off" } });
  const legend = h("div", { class: "legend" });

  const shown = (): Curve[] => curves.filter((curve) => !hidden.has(curve.name));
  /** Heights of the curves, on top of one another when stacked. */
  function heights(): (number | null)[][] {
    let below: number[] = [];
    return shown().map((curve) => {
      if (options.stacked !== true) return [...curve.y];
      below = curve.y.map((y, i) => (y ?? 0) + (below[i] ?? 0));
      return below;
    });
  }
  function extent(): [number, number] {
    if (range !== null) return range;
    let low = Infinity, high = -Infinity;
    for (const curve of shown()) {
      low = Math.min(low, curve.x[0] ?? Infinity);
      high = Math.max(high, curve.x[curve.x.length - 1] ?? -Infinity);
    }
    return low <= high ? [low, high === low ? low + 1 : high] : [0, 1];
  }

  const chart = plot(options.label, options.height ?? 220, (context, width, height) => {
    const [x0, x1] = extent();
    const values = heights();
    let low = options.stacked === true ? 0 : Infinity, high = -Infinity;
    shown().forEach((curve, c) => {
      values[c]?.forEach((y, i) => {
        const x = curve.x[i] ?? 0;
        if (y === null || !Number.isFinite(y) || x < x0 || x > x1) return;
        low = Math.min(low, y);
        high = Math.max(high, y);
      });
    });
    if (!(low <= high)) { low = 0; high = 1; }
    if (low > 0 && low < 0.5 * high) low = 0;
    if (low === high) {  // a constant: from zero, so that its size shows
      low = Math.min(0, low);
      high = Math.max(0, high);
      if (low === high) high = 1;
    }
    high += (high - low) * 0.04;
    const px = (x: number): number => left + ((x - x0) / (x1 - x0)) * (width - left - right);
    const py = (y: number): number => top + (1 - (y - low) / (high - low)) * (height - top - bottom);

    context.strokeStyle = color("line");
    context.fillStyle = color("muted");
    context.textBaseline = "middle";
    context.textAlign = "right";
    const unit = options.unit ?? 1;
    for (const part of ticks(low / unit, high / unit, 4)) {
      const y = part * unit;
      context.beginPath();
      context.moveTo(left, py(y));
      context.lineTo(width - right, py(y));
      context.stroke();
      context.fillText(options.showY(y), left - 6, py(y));
    }
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    for (const x of ticks(x0, x1, Math.max(2, width / 140))) {
      const text = options.showX(x), half = context.measureText(text).width / 2;
      context.fillText(text, Math.min(px(x), width - half - 2), height - 5);
    }

    context.save();
    context.beginPath();
    context.rect(left, 0, width - left - right, height - bottom + 1);
    context.clip();
    const list = shown();
    for (let c = list.length - 1; c >= 0; --c) {
      const curve = list[c], y = values[c];
      if (curve === undefined || y === undefined) continue;
      const tone = series(curves.indexOf(curve));
      context.beginPath();
      let open = false;
      let before = 0;
      const first = Math.max(0, nearest(curve.x, x0) - 1), last = Math.min(curve.x.length, nearest(curve.x, x1) + 2);
      for (let i = first; i < last; ++i) {
        const value = y[i];
        if (value === null || value === undefined || !Number.isFinite(value)) { open = false; continue; }
        const at = px(curve.x[i] ?? 0);
        if (!open) context.moveTo(at, py(value));
        else {
          if (options.step === true) context.lineTo(at, py(before));
          context.lineTo(at, py(value));
        }
        open = true;
        before = value;
      }
      context.strokeStyle = tone;
      context.lineWidth = 1.5;
      context.setLineDash(options.stacked === true ? [] : [[], [6, 3], [2, 2], [8, 3, 2, 3]][curves.indexOf(curve) % 4] ?? []);
      context.stroke();
      context.setLineDash([]);
      if (options.stacked === true) {
        context.lineTo(px(curve.x[last - 1] ?? 0), py(0));
        context.lineTo(px(curve.x[first] ?? 0), py(0));
        context.fillStyle = tone;
        context.globalAlpha = 0.5;
        context.fill();
        context.globalAlpha = 1;
      }
    }
    if (hover !== null) {
      context.strokeStyle = color("muted");
      context.beginPath();
      context.moveTo(px(hover), 0);
      context.lineTo(px(hover), height);
      context.stroke();
      if (drag !== null) {
        context.fillStyle = color("select");
        context.fillRect(Math.min(px(drag), px(hover)), 0, Math.abs(px(hover) - px(drag)), height);
      }
    }
    context.restore();
  });

  const toX = (event: MouseEvent): number => {
    const [x0, x1] = extent();
    const box = chart.canvas.getBoundingClientRect();
    return x0 + ((event.clientX - box.left - left) / (box.width - left - right)) * (x1 - x0);
  };
  function read(): void {
    if (hover === null) { readout.textContent = ""; return; }
    const at = hover;
    const parts = shown().map((curve) => {
      const value = curve.y[nearest(curve.x, at)];
      return `${curve.name} ${value === null || value === undefined ? "–" : options.showY(value)}`;
    });
    const first = shown()[0];
    const x = first?.x[nearest(first.x, at)];
    readout.textContent = `${x === undefined ? "" : options.showX(x)}   ${parts.slice(0, 12).join("   ")}`;
  }
  chart.canvas.addEventListener("mousemove", (event) => { hover = toX(event); read(); chart.redraw(); });
  chart.canvas.addEventListener("mouseleave", () => { hover = null; drag = null; read(); chart.redraw(); });
  chart.canvas.addEventListener("mousedown", (event) => { drag = toX(event); });
  chart.canvas.addEventListener("mouseup", (event) => {
    const end = toX(event);
    const [x0, x1] = extent();
    if (drag !== null && Math.abs(end - drag) > (x1 - x0) * 0.01) range = [Math.min(drag, end), Math.max(drag, end)];
    drag = null;
    chart.redraw();
  });
  const reset = (): void => { range = null; chart.redraw(); };
  chart.canvas.addEventListener("dblclick", reset);

  function update(next: Curve[]): void {
    curves = next;
    replace(legend, ...curves.map((curve, i) => {
      const entry = button(curve.name, () => {
        if (hidden.has(curve.name)) hidden.delete(curve.name); else hidden.add(curve.name);
        entry.setAttribute("aria-pressed", String(!hidden.has(curve.name)));
        chart.redraw();
      }, { class: "key", attrs: { "aria-pressed": String(!hidden.has(curve.name)) } });
      entry.style.setProperty("--key", series(i));
      return entry;
    }), button(t("Whole range"), reset, { class: "quiet" }));
    chart.redraw();
  }
  update(start);
  return { element: h("div", { class: "chart" }, legend, chart.element, readout), update };
}
