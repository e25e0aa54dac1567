// Counter lanes: smallest, largest and mean value of each bucket in view.
import { ask, isReport } from "../api";
import { begin } from "../idle";
import type { Json } from "../format";
import { bytes, numberOf, short } from "../format";
import { color } from "../theme";
import type { Lane, Track } from "./lanes";
import type { TimelineView } from "./view";

interface Piece { t0: number; t1: number; min: Json[]; max: Json[]; avg: Json[] }
const buckets = 800;

export class Counters {
  private readonly pieces = new Map<number, Piece>();
  private readonly asking = new Set<number>();
  constructor(private readonly changed: () => void) {}

  private request(view: TimelineView, track: Track): void {
    const length = view.t1 - view.t0, shift = view.shiftOf(track.file);
    const t0 = view.t0 - shift, t1 = view.t1 - shift;
    const piece = this.pieces.get(track.id);
    const fits = piece !== undefined && (isReport() ||
      (piece.t0 <= Math.max(t0, view.begin) && piece.t1 >= Math.min(t1, view.end) && piece.t1 - piece.t0 <= length * 6));
    if (fits || this.asking.has(track.id) ) return;
    this.asking.add(track.id);
    const done = begin();
    const from = Math.floor(Math.max(view.begin, t0 - length / 2)), to = Math.ceil(Math.min(view.end + 1, t1 + length / 2));
    // A saved report has one curve of the whole time.
    ask("counters", isReport() ? { track: track.id } : { track: track.id, t0: from, t1: Math.max(to, from + 1), n: buckets }).then((answer) => {
      const list = (name: string): Json[] => { const value = answer[name]; return Array.isArray(value) ? value : []; };
      this.pieces.set(track.id, { t0: numberOf(answer["t0"], from), t1: numberOf(answer["t1"], to), min: list("min"), max: list("max"), avg: list("avg") });
    }).catch(() => {
      if (isReport()) this.pieces.set(track.id, { t0: from, t1: to, min: [], max: [], avg: [] });  // asked once
    }).finally(() => {
      setTimeout(() => { this.asking.delete(track.id); this.changed(); done(); }, 60);
    });
  }

  draw(context: CanvasRenderingContext2D, view: TimelineView, lane: Lane, track: Track, clipTop: number): void {
    this.request(view, track);
    const piece = this.pieces.get(track.id);
    if (piece === undefined || piece.avg.length === 0) return;
    const y = view.yOf(lane), height = lane.height - 6;
    const low = Math.min(0, track.min), high = Math.max(track.max, low + 1e-9);
    const py = (value: number): number => y + 2 + (1 - (value - low) / (high - low)) * height;
    const shift = view.shiftOf(track.file), width = (piece.t1 - piece.t0) / piece.avg.length;
    context.save();
    context.beginPath();
    context.rect(0, clipTop, view.width, view.height);
    context.clip();
    context.fillStyle = color("counter");
    for (let i = 0; i < piece.avg.length; ++i) {
      const top = piece.max[i], middle = piece.avg[i];
      if (typeof top !== "number" || typeof middle !== "number") continue;
      const x = view.xOf(piece.t0 + i * width + shift), end = view.xOf(piece.t0 + (i + 1) * width + shift);
      if (end < 0 || x > view.width) continue;
      context.globalAlpha = 0.35;
      context.fillRect(x, py(top), Math.max(1, end - x), py(low) - py(top));
      context.globalAlpha = 1;
      context.fillRect(x, py(middle), Math.max(1, end - x), 1.5);
    }
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = color("muted");
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillText(/mem|byte|alloc|reserved/i.test(track.name) ? bytes(track.max) : short(track.max), view.width - 4, y + 8);
    context.restore();
  }
}
