// The events of one trace inside a saved report, as columns.
import type { Json, Row } from "./format";
import { numberOf, rowsOf, textOf } from "./format";

interface HeldRow { first: number; count: number }
export interface HeldTrack { id: number; device: boolean; rows: HeldRow[]; first: number; count: number }

/** Numbers of a list, or of a text "1,2,3". */
export function asNumbers(value: Json | undefined): number[] {
  if (Array.isArray(value)) return value.map(Number);
  return typeof value === "string" && value !== "" ? value.split(",").map(Number) : typeof value === "number" ? [value] : [];
}

class Reader {
  private at = 0;
  constructor(private readonly bytes: Uint8Array) {}
  next(): number {
    let value = 0, scale = 1;
    for (;;) {
      const byte = this.bytes[this.at++];
      if (byte === undefined) throw new Error("the events of this report are cut off");
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
  }
  signed(): number {
    const value = this.next();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }
}

export class HeldFile {
  readonly number: number;
  readonly rank: number;
  readonly count: number;
  readonly start: Float64Array;         // ns, as elsewhere in the report
  readonly dur: Float64Array;
  readonly name: Uint32Array;
  readonly parent: Int32Array;          // -1: none
  readonly category: Uint8Array;
  readonly work: Uint8Array;
  readonly flowFrom: number[] = [];
  readonly flowTo: number[] = [];
  readonly firstLink: number;           // flows from here on lead from a launch to the device's work
  readonly tracks: HeldTrack[] = [];
  readonly names: string[];
  private readonly steps: number[][];

  constructor(about: Row, packed: Uint8Array, strings: Row, private readonly categories: readonly string[], private readonly works: readonly string[]) {
    this.number = numberOf(about["file"]);
    this.rank = numberOf(about["rank"], -1);
    const list = strings["strings"], steps = about["steps"], long = about["long_names"];
    this.names = Array.isArray(list) ? list.map(textOf) : [];
    if (typeof long === "object" && long !== null && !Array.isArray(long)) for (const [id, text] of Object.entries(long)) this.names[Number(id)] = textOf(text);
    this.steps = Array.isArray(steps) ? steps.map(asNumbers) : [];
    const read = new Reader(packed), n = this.count = read.next();
    this.start = new Float64Array(n);
    let at = 0;
    for (const track of rowsOf(about["tracks"])) {
      const rows: HeldRow[] = [], first = at;
      for (const count of asNumbers(track["rows"])) {
        rows.push({ first: at, count });
        let before = 0;
        for (const end = at + count; at < end; ++at) this.start[at] = before = rows[rows.length - 1]?.first === at ? read.signed() : before + read.next();
      }
      this.tracks.push({ id: numberOf(track["id"]), device: track["device"] === true, rows, first, count: at - first });
    }
    this.dur = Float64Array.from({ length: n }, () => read.next());
    this.name = Uint32Array.from({ length: n }, () => read.next());
    this.parent = Int32Array.from({ length: n }, (_, e) => { const up = read.next(); return up === 0 ? -1 : e - up; });
    this.category = Uint8Array.from({ length: n }, () => read.next());
    this.work = Uint8Array.from({ length: n }, () => read.next());
    const arrows = (): void => {
      for (let left = read.next(); left > 0; --left) {
        const from = read.next();
        this.flowFrom.push(from);
        this.flowTo.push(from + read.signed());
      }
    };
    arrows();
    this.firstLink = this.flowFrom.length;
    arrows();
  }

  end(e: number): number { return (this.start[e] ?? 0) + (this.dur[e] ?? 0); }
  id(e: number): number { return this.number * 2 ** 32 + e; }
  nameOf(e: number): string { return this.names[this.name[e] ?? 0] ?? ""; }
  /** As lists show it. */
  shown(e: number): string { return this.nameOf(e).slice(0, 256); }
  categoryOf(e: number): string { return this.categories[this.category[e] ?? 0] ?? ""; }
  workOf(e: number): string { return this.works[this.work[e] ?? 0] ?? ""; }
  /** A mark of the collection itself; kept out of sums. */
  isMark(e: number): boolean { return this.categoryOf(e) === "span"; }
  track(id: number): HeldTrack | undefined { return this.tracks.find((track) => track.id === id); }

  private place(e: number): HeldTrack | undefined {
    let low = 0, high = this.tracks.length;
    while (low < high) {
      const middle = (low + high) >> 1, track = this.tracks[middle];
      if (track !== undefined && track.first + track.count <= e) low = middle + 1; else high = middle;
    }
    return this.tracks[low];
  }
  trackOf(e: number): number { return this.place(e)?.id ?? -1; }
  depth(e: number): number { return this.place(e)?.rows.findIndex((row) => e < row.first + row.count) ?? 0; }

  /** Positions [first, last) of a row that may overlap [t0, t1). */
  between(row: HeldRow, t0: number, t1: number): [number, number] {
    const bound = (t: number, after: boolean): number => {
      let low = row.first, high = row.first + row.count;
      while (low < high) {
        const middle = (low + high) >> 1, start = this.start[middle] ?? 0;
        if (start < t || (after && start === t)) low = middle + 1; else high = middle;
      }
      return low;
    };
    const first = Math.max(row.first, bound(t0, true) - 1);
    return [first, Math.max(first, bound(t1, false))];
  }

  brief(e: number): Row {
    return { id: this.id(e), name: this.shown(e), track: this.trackOf(e), start_ns: this.start[e] ?? 0, duration_ns: this.dur[e] ?? 0 };
  }

  children(e: number): number[] {
    const track = this.place(e), found: number[] = [];
    if (track === undefined) return found;
    for (const row of track.rows.slice(this.depth(e) + 1)) {
      const [first, last] = this.between(row, this.start[e] ?? 0, this.end(e) + 1);
      for (let c = first; c < last; ++c) if (this.parent[c] === e) found.push(c);
    }
    return found.sort((a, b) => (this.start[a] ?? 0) - (this.start[b] ?? 0));
  }

  private within(e: number, outer: number): boolean {
    for (let up = this.parent[e] ?? -1; up >= outer; up = this.parent[up] ?? -1) if (up === outer) return true;
    return false;
  }

  /** The next or previous event of the same name on any track. */
  sameName(e: number, forward: boolean): number | null {
    const after = (a: number, b: number): boolean => { const x = this.start[a] ?? 0, y = this.start[b] ?? 0; return x !== y ? x > y : a > b; };
    let best = -1;
    for (let i = 0; i < this.count; ++i) {
      if (this.name[i] !== this.name[e] || i === e) continue;
      if (forward ? after(i, e) && (best < 0 || after(best, i)) : after(e, i) && (best < 0 || after(i, best))) best = i;
    }
    return best < 0 ? null : this.id(best);
  }

  /** As module_of of src/insight/trace_tree.cpp: of the innermost scope that names its whole path. */
  private module(e: number): string {
    const prefix = "nn.Module: ";
    let joined = "";
    for (let at = e; at >= 0; at = this.parent[at] ?? -1) {
      const name = this.nameOf(at);
      if (!name.startsWith(prefix)) continue;
      const own = name.slice(prefix.length);
      if (this.categoryOf(at) !== "python_function") return own;
      joined = joined === "" ? own : `${own}.${joined}`;
    }
    return joined;
  }

  /** Everything about one event but its arguments. */
  slice(e: number): Row {
    const children = this.children(e), flows = { in: [] as Row[], out: [] as Row[] }, kernels: Row[] = [];
    const place = this.place(e), host = ["cuda_runtime", "cuda_driver", "cpu_op"].includes(this.categoryOf(e));
    let launch = -1;
    for (let i = 0; i < this.flowFrom.length; ++i) {
      const from = this.flowFrom[i] ?? 0, to = this.flowTo[i] ?? 0;
      if (i >= this.firstLink && to === e) launch = from;
      if (i >= this.firstLink && host && kernels.length < 200 && (from === e || this.within(from, e))) kernels.push(this.brief(to));
      if (this.flowTo[i] === e && flows.in.length < 100) flows.in.push(this.brief(this.flowFrom[i] ?? 0));
      if (this.flowFrom[i] === e && flows.out.length < 100) flows.out.push(this.brief(this.flowTo[i] ?? 0));
    }
    const parents: Row[] = [];
    for (let up = this.parent[e] ?? -1; up >= 0 && parents.length < 256; up = this.parent[up] ?? -1) parents.push({ id: this.id(up), name: this.shown(up) });
    const device = place?.device === true;
    const at = this.start[device && launch >= 0 ? launch : e] ?? 0;  // work belongs to the step that launched it
    const step = this.steps.find(([, begin = 0, end = 0]) => at >= begin && at < end);
    return {
      ...this.brief(e), name: this.nameOf(e), rank: this.rank, category: this.categoryOf(e), class: this.workOf(e),
      self_ns: Math.max(0, children.reduce((rest, c) => rest - (this.dur[c] ?? 0), this.dur[e] ?? 0)), depth: this.depth(e), step: step?.[0] ?? null, module: this.module(device ? launch : e),
      parents, children: children.slice(0, 200).map((c) => this.brief(c)), num_children: children.length, flows_in: flows.in, flows_out: flows.out,
      kernels, ...(launch >= 0 ? { launched_by: this.brief(launch) } : {}),
      previous: this.sameName(e, false), next: this.sameName(e, true), args: null,
    };
  }
}
