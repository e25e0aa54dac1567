// The timeline's picture: what is in view, which tiles it needs, and how a frame is drawn.
// Input is in input.ts, the panel below in panel.ts.
import { ask } from "../api";
import { h } from "../dom";
import type { Row } from "../format";
import { numberOf, rowsOf, time } from "../format";
import { color, isDark, onTheme } from "../theme";
import { ticks } from "../canvas";
import { Counters } from "./counters";
import type { Lane, RankTracks } from "./lanes";
import { Lanes, rowHeight } from "./lanes";
import { drawFlows, Flows } from "./flows";
import { Painter } from "./paint";
import { Names, TileStore, tileSpan } from "./tiles";

export const gutter = 210, rulerHeight = 22;

/** An event as far as the picture knows it. Times as shown, after alignment by hand. */
export interface Hit {
  lane: Lane; track: number; file: number; id: number; event: number; name: string; count: number;
  start: number; dur: number; depth: number;
}
export interface Range { t0: number; t1: number; tracks: number[] | null }  // null: all tracks

/** A search for this name; long ones are only shown in part, and are searched by their beginning. */
function exactName(name: string): string {
  const pattern = `/^${name.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")}$/`;
  return pattern.length <= 512 && !name.endsWith("…") ? pattern : name.slice(0, 200);
}

export class TimelineView {
  t0: number;
  t1: number;
  scroll = 0;
  selected: Hit | null = null;
  range: Range | null = null;
  marks: { track: number; start: number; dur: number }[] = [];
  box: { x0: number; x1: number } | null = null;
  hover: Hit | null = null;
  readonly shifts = new Map<number, number>();
  readonly lanes: Lanes;
  readonly names = new Map<number, Names>();
  readonly tiles: TileStore;
  readonly counters: Counters;
  readonly flows: Flows;
  readonly element: HTMLElement;
  readonly canvas = h("canvas", { class: "tracks", attrs: { tabindex: 0, role: "application",
    "aria-label": "timeline; W and S zoom, A and D move, arrows scroll, question mark shows all keys" } });
  readonly gutterElement = h("div", { class: "gutter" });
  onLanes: () => void = () => undefined;
  onFlows: () => void = () => undefined;
  onFrame: (() => void)[] = [];
  readonly error = h("div", { class: "notice", attrs: { role: "status", hidden: true } });
  private readonly painter = new Painter();
  private readonly body: HTMLElement;
  private dirty = true;
  private alive = true;
  private lanesChanged = true;
  private charWidth = 0;
  width = 0;
  height = 0;

  constructor(readonly ranks: RankTracks[], readonly begin: number, readonly end: number) {
    const pad = Math.max(1, (end - begin) * 0.01);
    this.t0 = begin - pad;
    this.t1 = end + pad;
    this.lanes = new Lanes(ranks);
    this.tiles = new TileStore(() => { this.draw(); }, (error) => {
      this.error.hidden = false;
      this.error.textContent = String(error instanceof Error ? error.message : error);
    });
    this.tiles.overviewLevel = Math.max(0, Math.ceil(Math.log2(Math.max(1, (end - begin) / 512 / 2))));
    for (const rank of ranks) this.names.set(rank.file, new Names(rank.file, () => { this.draw(); }));
    this.counters = new Counters(() => { this.draw(); });
    this.flows = new Flows(() => { this.draw(); this.onFlows(); });
    this.body = h("div", { class: "timeline-body" }, this.gutterElement, this.canvas);
    this.element = h("div", { class: "timeline" }, this.error, this.body);
    new ResizeObserver(() => { this.resize(); }).observe(this.body);
    onTheme(() => { this.painter.theme(); this.draw(); });
    this.painter.theme();
    const loop = (): void => {
      if (!this.alive) return;
      for (const step of this.onFrame) step();
      if (this.dirty && this.width > 0) { this.dirty = false; this.frame(); }
      requestAnimationFrame(loop);
    };
    requestAnimationFrame(loop);
  }

  close(): void { this.alive = false; this.flows.stop(); }
  draw(): void { this.dirty = true; }
  /** Nothing is left to draw or on its way. */
  get still(): boolean { return !this.alive || (!this.dirty && this.width > 0 && !this.tiles.busy); }
  layoutChanged(): void {
    this.lanes.layout();
    this.scroll = this.clampScroll(this.scroll);
    this.lanesChanged = true;
    this.draw();
  }

  private resize(): void {
    this.width = Math.max(0, this.body.clientWidth - gutter);
    this.height = this.body.clientHeight;
    const density = window.devicePixelRatio;
    this.canvas.width = Math.max(1, Math.round(this.width * density));
    this.canvas.height = Math.max(1, Math.round(this.height * density));
    this.canvas.style.width = `${this.width}px`;
    this.canvas.style.height = `${this.height}px`;
    this.lanesChanged = true;
    this.draw();
  }

  get scale(): number { return this.width / (this.t1 - this.t0); }  // px per ns
  timeAt(x: number): number { return this.t0 + x / this.scale; }
  xOf(t: number): number { return (t - this.t0) * this.scale; }
  private clampScroll(y: number): number {
    const room = this.height - rulerHeight - this.lanes.pinnedHeight;
    return Math.max(0, Math.min(y, this.lanes.height - this.lanes.pinnedHeight - room));
  }
  scrollTo(y: number): void {
    const next = this.clampScroll(y);
    if (next !== this.scroll) { this.scroll = next; this.lanesChanged = true; this.draw(); }
  }

  setWindow(t0: number, t1: number): void {
    const whole = Math.max(1, this.end - this.begin);
    const length = Math.min(Math.max(t1 - t0, 20), whole * 1.2);
    let from = (t0 + t1) / 2 - length / 2;
    from = Math.max(this.begin - whole * 0.1, Math.min(from, this.end + whole * 0.1 - length));
    this.t0 = from;
    this.t1 = from + length;
    this.draw();
  }
  zoom(factor: number, at: number): void {
    this.setWindow(at - (at - this.t0) * factor, at + (this.t1 - at) * factor);
  }
  pan(part: number): void {
    const by = (this.t1 - this.t0) * part;
    this.setWindow(this.t0 + by, this.t1 + by);
  }
  shiftOf(file: number): number { return this.shifts.get(file) ?? 0; }

  /** Top of a lane on the canvas, px. */
  yOf(lane: Lane): number {
    return rulerHeight + lane.top - (lane.pinned ? 0 : this.scroll);
  }
  laneAt(y: number): Lane | undefined {
    const inside = y - rulerHeight;
    if (inside < 0) return undefined;
    if (inside < this.lanes.pinnedHeight) return this.lanes.at(inside);
    const lane = this.lanes.at(inside + this.scroll);
    return lane?.pinned === true ? undefined : lane;
  }

  /** The event at a place of the canvas. */
  hit(x: number, y: number): Hit | null {
    const lane = this.laneAt(y);
    if (lane?.track === null || lane?.track === undefined || lane.kind === "counter") return null;
    const depth = lane.kind === "rank" ? 0 : Math.floor((y - this.yOf(lane)) / rowHeight);
    const slack = 2 / this.scale;
    return this.find(lane, depth, this.timeAt(x), slack);
  }

  private find(lane: Lane, depth: number, at: number, slack: number): Hit | null {
    const track = lane.track;
    if (track === null) return null;
    const shift = this.shiftOf(track.file);
    const level = this.tiles.levelFor(1 / this.scale / window.devicePixelRatio);
    const index = Math.floor((at - shift) / tileSpan(level));
    const tile = this.tiles.get(track.id, level, index) ?? this.tiles.coarser(track.id, level, index);
    const row = tile?.rows.find((candidate) => candidate.depth === depth);
    if (tile === undefined || row === undefined) return null;
    const t = at - shift - tile.begin;
    let best = -1, least = slack;
    for (let i = 0; i < row.start.length; ++i) {
      const start = row.start[i] ?? 0, end = start + (row.dur[i] ?? 0);
      const distance = t < start ? start - t : t > end ? t - end : 0;
      if (distance <= least && (best < 0 || distance < least)) { best = i; least = distance; if (distance === 0) break; }
    }
    if (best < 0) return null;
    const event = row.event[best] ?? 0;
    return {
      lane, track: track.id, file: track.file, id: track.file * 2 ** 32 + event, event,
      name: this.names.get(track.file)?.get(row.name[best] ?? 0) ?? "…", count: row.count[best] ?? 1,
      start: (row.start[best] ?? 0) + tile.begin + shift, dur: row.dur[best] ?? 0, depth,
    };
  }

  /** Shows an event that another part of the page names (search, a finding, a table). */
  reveal(track: number, start: number, dur: number): void {
    const lane = this.lanes.laneOf(track);
    const rank = this.ranks.find((r) => r.tracks.some((candidate) => candidate.id === track));
    if (lane === undefined && rank !== undefined) {
      this.lanes.collapsed.delete(`r${rank.rank}`);
      this.layoutChanged();
    }
    const shift = rank === undefined ? 0 : this.shiftOf(rank.file);
    const at = start + shift, length = Math.max(dur * 8, 1000);
    const shown = this.t1 - this.t0;
    if (at < this.t0 || at + dur > this.t1 || dur < shown / 400) this.setWindow(at + dur / 2 - length / 2, at + dur / 2 + length / 2);
    const placed = this.lanes.laneOf(track);
    if (placed !== undefined && !placed.pinned) {
      const y = this.yOf(placed);
      if (y < rulerHeight + this.lanes.pinnedHeight || y + Math.min(placed.height, 60) > this.height) {
        this.scrollTo(placed.top - this.lanes.pinnedHeight - (this.height - rulerHeight) / 3);
      }
    }
    this.draw();
  }

  /** Moves every other rank so that its event of this name starts (or ends) where `reference` does. */
  async align(reference: Hit, edge: "start" | "end"): Promise<number> {
    let moved = 0;
    const target = reference.start + (edge === "end" ? reference.dur : 0);
    const original = reference.start - this.shiftOf(reference.file);
    for (const rank of this.ranks) {
      if (rank.file === reference.file) continue;
      const found = await ask("search", { q: exactName(reference.name), rank: rank.rank, limit: 2000 }).catch(() => null);
      const matches = rowsOf(found?.["matches"]).filter((match) => match["name"] === reference.name);
      let nearest: Row | null = null;
      for (const match of matches) {
        if (nearest === null || Math.abs(numberOf(match["start_ns"]) - original) < Math.abs(numberOf(nearest["start_ns"]) - original)) nearest = match;
      }
      if (nearest === null) continue;
      this.shifts.set(rank.file, target - numberOf(nearest["start_ns"]) - (edge === "end" ? numberOf(nearest["duration_ns"]) : 0));
      ++moved;
    }
    this.draw();
    return moved;
  }

  visibleLanes(): Lane[] {
    const bottom = this.height;
    return this.lanes.list.filter((lane) => {
      const y = this.yOf(lane);
      const top = lane.pinned ? rulerHeight : rulerHeight + this.lanes.pinnedHeight;
      return y + lane.height > top && y < bottom;
    });
  }

  fade(query: string): void { this.painter.fade(query); this.draw(); }

  private frame(): void {
    const context = this.canvas.getContext("2d", { alpha: false });
    if (context === null) return;
    const density = window.devicePixelRatio;
    const lanes = this.visibleLanes();
    const deviceScale = this.scale * density;
    this.painter.begin(this.canvas.width, this.canvas.height);
    this.request(lanes, deviceScale);
    const bandTone = this.painter.tone("band"), pinTone = this.painter.tone("pin");
    const top = Math.round((rulerHeight + this.lanes.pinnedHeight) * density);
    // Lanes that scroll come first; what reaches under the pinned ones is painted over.
    for (const pinned of [false, true]) {
      if (pinned && this.lanes.pinnedHeight > 0) {
        this.painter.band(0, top, pinTone);
        this.painter.labels = this.painter.labels.filter((label) => label.y >= top);
      }
      for (const lane of lanes) if (lane.pinned === pinned) this.paintLane(lane, deviceScale, density, bandTone);
    }
    this.painter.end(context);
    context.setTransform(density, 0, 0, density, 0, 0);
    this.overlay(context, lanes, density);
    if (this.lanesChanged) { this.lanesChanged = false; this.onLanes(); }
  }

  private request(lanes: readonly Lane[], deviceScale: number): void {
    const level = this.tiles.levelFor(1 / deviceScale);
    const tracks = lanes.flatMap((lane) => (lane.track !== null && lane.kind !== "counter" ? [lane.track.id] : []));
    const shifts = lanes.flatMap((lane) => (lane.track === null ? [] : [this.shiftOf(lane.track.file)]));
    const low = Math.min(0, ...shifts), high = Math.max(0, ...shifts);
    const whole = this.tiles.overviewLevel;
    const clip = (t: number): number => Math.max(this.begin, Math.min(this.end, t));
    const first = (l: number, t: number): number => Math.floor(clip(t) / tileSpan(l));
    this.tiles.want(whole, first(whole, this.begin), first(whole, this.end), tracks);
    const a = first(level, this.t0 - high), b = first(level, this.t1 - low);
    this.tiles.want(level, a, b, tracks);
    if (!this.tiles.busy) this.tiles.want(level, Math.max(first(level, this.begin), a - 1), Math.min(first(level, this.end), b + 1), tracks);
  }

  private paintLane(lane: Lane, scale: number, density: number, bandTone: number): void {
    const y = Math.round(this.yOf(lane) * density);
    if (lane.kind === "rank") this.painter.band(y, Math.round((lane.height - 1) * density), bandTone);
    if (lane.track === null || lane.kind === "counter") return;
    const { id, file } = lane.track;
    const names = this.names.get(file);
    if (names === undefined) return;
    const shift = this.shiftOf(file);
    const level = this.tiles.levelFor(1 / scale), span = tileSpan(level);
    const first = Math.floor((Math.max(this.t0 - shift, this.begin)) / span);
    const last = Math.floor((Math.min(this.t1 - shift, this.end)) / span);
    const step = Math.round(rowHeight * density), high = step - Math.round(density);
    const margin = lane.kind === "rank" ? Math.round(2 * density) : 0;
    for (let index = first; index <= last; ++index) {
      const tile = this.tiles.get(id, level, index) ?? this.tiles.coarser(id, level, index);
      if (tile === undefined) continue;
      const left = Math.max(0, Math.round((index * span + shift - this.t0) * scale));
      const right = Math.min(this.canvas.width, Math.round(((index + 1) * span + shift - this.t0) * scale));
      for (const row of tile.rows) {
        if (row.depth >= lane.rows) continue;
        this.painter.row(tile, row, shift, this.t0, scale, left, right, y + margin + row.depth * step, high, names, 34 * density);
      }
    }
    for (let depth = 0; depth < lane.rows; ++depth) this.painter.spread(y + margin + depth * step, high);
  }

  private overlay(context: CanvasRenderingContext2D, lanes: readonly Lane[], density: number): void {
    const topOf = (lane: Lane): number => (lane.pinned ? rulerHeight : rulerHeight + this.lanes.pinnedHeight);
    for (const lane of lanes) {
      if (lane.kind === "counter" && lane.track !== null) this.counters.draw(context, this, lane, lane.track, topOf(lane));
    }
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "left";
    context.fillStyle = isDark() ? "#f3f4f6" : "#111827";
    if (this.charWidth === 0) this.charWidth = context.measureText("ncclDevKernel_AllReduce_Sum_f32_RING").width / 36;
    let drawn = 0;
    for (const label of this.painter.labels) {
      if (label.width < 34 * density) continue;
      if (++drawn > 500) break;
      const room = Math.floor((label.width / density - 7) / this.charWidth);
      const text = label.text.length <= room ? label.text : `${label.text.slice(0, Math.max(1, room - 1))}…`;
      context.fillText(text, label.x / density + 3, label.y / density + 9);
    }
    if (this.range !== null || this.box !== null) {
      const x0 = this.box?.x0 ?? this.xOf(this.range?.t0 ?? 0), x1 = this.box?.x1 ?? this.xOf(this.range?.t1 ?? 0);
      context.fillStyle = color("select");
      context.fillRect(Math.min(x0, x1), rulerHeight, Math.abs(x1 - x0), this.height);
      context.strokeStyle = color("accent");
      context.strokeRect(Math.min(x0, x1) + 0.5, rulerHeight - 1, Math.abs(x1 - x0), this.height + 2);
    }
    const outline = (track: number, start: number, dur: number, depth: number, tone: string, thick: number): void => {
      const lane = lanes.find((candidate) => candidate.track?.id === track);
      if (lane === undefined) return;
      const y = this.yOf(lane) + (lane.kind === "rank" ? 2 : Math.min(depth, lane.rows - 1) * rowHeight);
      if (y < topOf(lane) - rowHeight) return;
      context.strokeStyle = tone;
      context.lineWidth = thick;
      context.strokeRect(this.xOf(start), y, Math.max(2, dur * this.scale), rowHeight - 1);
      context.lineWidth = 1;
    };
    for (const mark of this.marks.slice(0, 500)) {
      const lane = lanes.find((candidate) => candidate.track?.id === mark.track);
      const shift = lane?.track === null || lane?.track === undefined ? 0 : this.shiftOf(lane.track.file);
      const x = this.xOf(mark.start + shift);
      if (x < -2 || x > this.width + 2) continue;
      context.fillStyle = color("mark");
      context.fillRect(x - 1, rulerHeight - 6, 2, 6);
      if (lane !== undefined && this.yOf(lane) >= topOf(lane) - 1) context.fillRect(x, this.yOf(lane), Math.max(1.5, mark.dur * this.scale), 2);
    }
    drawFlows(context, this, lanes);
    if (this.selected !== null) outline(this.selected.track, this.selected.start, this.selected.dur, this.selected.depth, color("accent"), 2.5);
    this.ruler(context);
  }

  /** Of the chosen range, on the ruler: nothing of the lanes is covered. */
  private rangeLength(context: CanvasRenderingContext2D): void {
    if (this.range === null && this.box === null) return;
    const x0 = this.box?.x0 ?? this.xOf(this.range?.t0 ?? 0), x1 = this.box?.x1 ?? this.xOf(this.range?.t1 ?? 0);
    const text = `↔ ${time(Math.abs(this.timeAt(x1) - this.timeAt(x0)))}`, half = context.measureText(text).width / 2 + 4;
    const x = Math.max(half, Math.min(this.width - half, (x0 + x1) / 2));
    context.fillStyle = color("accent");
    context.fillRect(x - half, 2, 2 * half, rulerHeight - 5);
    context.fillStyle = color("page");
    context.textAlign = "center";
    context.fillText(text, x, 10);
  }

  private ruler(context: CanvasRenderingContext2D): void {
    context.fillStyle = color("panel");
    context.fillRect(0, 0, this.width, rulerHeight);
    context.strokeStyle = color("line");
    context.fillStyle = color("muted");
    context.textAlign = "left";
    for (const at of ticks(this.t0, this.t1, this.width / 130)) {
      const x = Math.round(this.xOf(at)) + 0.5;
      context.beginPath();
      context.moveTo(x, 0);
      context.lineTo(x, rulerHeight);
      context.stroke();
      context.fillText(time(at), x + 4, 10);
    }
    context.strokeRect(-1, -1, this.width + 2, rulerHeight + 1);
    this.rangeLength(context);
    if (this.lanes.pinnedHeight > 0) {
      context.beginPath();
      context.moveTo(0, rulerHeight + this.lanes.pinnedHeight - 1.5);
      context.lineTo(this.width, rulerHeight + this.lanes.pinnedHeight - 1.5);
      context.strokeStyle = color("accent");
      context.stroke();
    }
  }
}
