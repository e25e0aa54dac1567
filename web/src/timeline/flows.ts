// Arrows between events: launch to kernel, forward to backward.
import { ask } from "../api";
import { begin } from "../idle";
import { numberOf, rowsOf } from "../format";
import { color } from "../theme";
import type { Lane } from "./lanes";
import { rowHeight } from "./lanes";
import type { TimelineView } from "./view";

export interface Flow { from: number; to: number; fromTrack: number; toTrack: number; fromDepth: number; toDepth: number; fromNs: number; toNs: number }

export class Flows {
  list: Flow[] = [];
  on = false;
  total = 0;                // in view; more than `list` holds when there are too many to draw
  private key = "";
  private timer = 0;
  private asked: AbortController | null = null;
  private done: () => void = () => undefined;
  constructor(private readonly changed: () => void) {}

  /** Gives up the question on its way, if there is one. */
  stop(): void {
    window.clearTimeout(this.timer);
    this.asked?.abort();
    this.done();
  }

  /** Asks for the arrows in view once the view has stood still for a moment. */
  follow(view: TimelineView, lanes: readonly Lane[]): void {
    if (!this.on) {
      this.stop();
      if (this.key !== "") { this.list = []; this.key = ""; this.total = 0; this.changed(); }
      return;
    }
    const tracks = lanes.flatMap((lane) => (lane.track !== null && lane.kind === "track" ? [lane.track.id] : []));
    const t0 = Math.floor(view.t0), t1 = Math.ceil(view.t1);
    const key = `${t0}/${t1}/${tracks.join(",")}`;
    if (key === this.key) return;
    this.key = key;
    this.stop();
    const done = this.done = begin();
    const { signal } = this.asked = new AbortController();
    this.timer = window.setTimeout(() => {
      ask("flows", { t0, t1, tracks: tracks.join(","), limit: 600 }, signal).then((answer) => {
        if (signal.aborted) return;
        this.list = rowsOf(answer["flows"]).map((flow) => ({
          from: numberOf(flow["from"]), to: numberOf(flow["to"]), fromTrack: numberOf(flow["from_track"]), toTrack: numberOf(flow["to_track"]),
          fromDepth: numberOf(flow["from_depth"]), toDepth: numberOf(flow["to_depth"]), fromNs: numberOf(flow["from_ns"]), toNs: numberOf(flow["to_ns"]),
        }));
        this.total = numberOf(answer["total"], this.list.length);
        this.changed();
      }).catch(() => { if (!signal.aborted) { this.list = []; this.total = 0; } }).finally(done);
    }, 150);
  }
}

/** The middle of a depth's row, px below the top of its lane; a collapsed lane has one row. */
function middleOf(lane: Lane, depth: number): number {
  return (Math.min(depth, lane.rows - 1) + 0.5) * rowHeight;
}

export function drawFlows(context: CanvasRenderingContext2D, view: TimelineView, lanes: readonly Lane[]): void {
  view.flows.follow(view, lanes);
  if (view.flows.list.length === 0) return;
  const chosen = view.selected?.id;
  context.save();
  context.beginPath();
  context.rect(0, 22, view.width, view.height);
  context.clip();
  for (const flow of view.flows.list) {
    const a = view.lanes.laneOf(flow.fromTrack), b = view.lanes.laneOf(flow.toTrack);  // either may be out of view
    if (a?.track === null || a === undefined || b?.track === null || b === undefined) continue;
    const strong = flow.from === chosen || flow.to === chosen;
    const x0 = view.xOf(flow.fromNs + view.shiftOf(a.track.file)), x1 = view.xOf(flow.toNs + view.shiftOf(b.track.file));
    const y0 = view.yOf(a) + middleOf(a, flow.fromDepth), y1 = view.yOf(b) + middleOf(b, flow.toDepth);
    context.strokeStyle = strong ? color("accent") : color("flow");
    context.lineWidth = strong ? 2 : 1;
    context.globalAlpha = strong ? 1 : 0.45;
    const bend = Math.max(10, Math.abs(x1 - x0) / 2);
    context.beginPath();
    context.moveTo(x0, y0);
    context.bezierCurveTo(x0 + bend, y0, x1 - bend, y1, x1, y1);
    context.moveTo(x1 - 5, y1 - 3);
    context.lineTo(x1, y1);
    context.lineTo(x1 - 5, y1 + 3);
    context.stroke();
  }
  context.restore();
}
