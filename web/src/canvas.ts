// What the small charts share: a canvas that follows its size, the screen's density and the theme.
import { h } from "./dom";
import { onTheme } from "./theme";

export interface Plot {
  element: HTMLElement;
  redraw: () => void;
}

export function plot(
  label: string,
  height: number,
  draw: (context: CanvasRenderingContext2D, width: number, height: number) => void,
): Plot & { canvas: HTMLCanvasElement } {
  const canvas = h("canvas", { attrs: { role: "img", "aria-label": label } });
  const element = h("div", { class: "plot" }, canvas);
  element.style.height = `${height}px`;
  const redraw = (): void => {
    const width = element.clientWidth;
    if (width === 0) return;
    const density = window.devicePixelRatio;
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
    const context = canvas.getContext("2d");
    if (context === null) return;
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = "11px system-ui, sans-serif";
    draw(context, width, height);
  };
  new ResizeObserver(redraw).observe(element);
  onTheme(redraw);
  return { element, canvas, redraw };
}

/** Round values that divide [low, high] into about `count` parts. */
export function ticks(low: number, high: number, count: number): number[] {
  if (!(high > low)) return [low];
  const raw = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= raw) ?? 10) * power;
  const values: number[] = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; ++i) values.push(i * step);
  return values;
}

/** A filled rectangle with a pattern that tells series apart without colour. */
export function hatch(context: CanvasRenderingContext2D, x: number, y: number, width: number, height: number, pattern: number, ink: string): void {
  if (pattern === 0 || width < 3) return;
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = ink;
  context.globalAlpha = 0.35;
  context.lineWidth = 1;
  context.beginPath();
  const gap = 6;
  for (let at = -height; at < width + height; at += gap) {
    if (pattern === 1 || pattern === 3) { context.moveTo(x + at, y + height); context.lineTo(x + at + height, y); }
    if (pattern === 2 || pattern === 3) { context.moveTo(x + at, y); context.lineTo(x + at + height, y + height); }
    if (pattern === 4) { context.moveTo(x + at, y); context.lineTo(x + at, y + height); }
  }
  context.stroke();
  context.restore();
}
