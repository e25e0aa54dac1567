// The cell of a chart that the keyboard has chosen.
import { h } from "./dom";
import { t } from "./strings";
import { color } from "./theme";

/** Cells that the arrows walk over and Enter opens, as a click does; what is chosen stands in words below the chart. */
export class Choice {
  readonly words = h("p", { class: "chosen", attrs: { role: "status" } });
  chosen: readonly [number, number] | null = null;
  redraw: () => void = () => undefined;
  constructor(private readonly rows: number, private readonly columns: number,
    private readonly describe: (row: number, column: number) => string, private readonly open: (row: number, column: number) => void) {}

  attach(canvas: HTMLCanvasElement, redraw: () => void): void {
    this.redraw = redraw;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-description", t("Arrows move, Enter opens"));
    canvas.addEventListener("focus", () => { if (this.chosen === null && canvas.matches(":focus-visible")) this.choose(0, 0); });
    canvas.addEventListener("keydown", (event) => {
      const [row, column] = this.chosen ?? [0, 0];
      const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (by !== undefined) this.choose(row + (by[0] ?? 0), column + (by[1] ?? 0));
      else if (event.key === "Home") this.choose(0, 0);
      else if (event.key === "End") this.choose(this.rows - 1, this.columns - 1);
      else if (event.key === "Enter" && this.chosen !== null) this.open(row, column);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  private choose(row: number, column: number): void {
    if (this.rows === 0 || this.columns === 0) return;
    this.chosen = [Math.max(0, Math.min(this.rows - 1, row)), Math.max(0, Math.min(this.columns - 1, column))];
    this.words.textContent = this.describe(...this.chosen).replaceAll("\n", " · ");
    this.redraw();
  }
}

/** A frame around what is chosen. */
export function outline(context: CanvasRenderingContext2D, x: number, y: number, width: number, height: number): void {
  context.strokeStyle = color("accent");
  context.lineWidth = 2;
  context.strokeRect(x + 1, y + 1, width - 2, height - 2);
  context.lineWidth = 1;
}
