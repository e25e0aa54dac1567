// Events that a saved report carries one by one: its page answers from them what a server would
// answer from the trace. Written by src/insight/report_events.cpp.
import type { Query } from "./api";
import { asNumbers, HeldFile } from "./heldfile";
import { flameOf } from "./heldflame";
import { rangeOf } from "./heldrange";
import type { Json, Row } from "./format";
import { isRow, numberOf, rowsOf, textOf } from "./format";

const longest = 512;

/** What a query asks of a name: as src/insight/search.cpp, without arguments, which are not held. */
export function nameTest(query: string): (name: string) => boolean {
  if (query.length > longest) throw new Error(`search: the query has ${query.length} characters; at most ${longest} are allowed`);
  if (query.length > 2 && query.startsWith("/") && query.endsWith("/")) {
    const pattern = new RegExp(query.slice(1, -1), "i");
    return (name) => pattern.test(name.slice(0, 1024));
  }
  const part = query.toLowerCase();
  return (name) => name.toLowerCase().includes(part);
}

const asksArguments = (query: string): boolean => !query.startsWith("/") && /^[^:]+:[^:]/.test(query) && !query.includes("::");

export class Held {
  private readonly byFile = new Map<number, HeldFile>();
  readonly ranks: number[] = [];
  constructor(private readonly report: Row, private readonly columns: (file: number) => Uint8Array, private readonly strings: (file: number) => Row) {
    for (const about of rowsOf(report["held"])) this.ranks.push(numberOf(about["rank"], -1));
  }

  get any(): boolean { return this.ranks.length > 0; }

  private about(file: number): Row | undefined { return rowsOf(this.report["held"]).find((about) => about["file"] === file); }

  /** The events of a file, unpacked when they are first asked for. */
  file(number: number): HeldFile | null {
    const known = this.byFile.get(number);
    if (known !== undefined) return known;
    const about = this.about(number);
    if (about === undefined) return null;
    const words = (name: string): string[] => { const list = this.report[name]; return Array.isArray(list) ? list.map(textOf) : []; };
    const made = new HeldFile(about, this.columns(number), this.strings(number), words("categories"), words("works"));
    this.byFile.set(number, made);
    return made;
  }
  private get files(): HeldFile[] { return rowsOf(this.report["held"]).flatMap((about) => this.file(numberOf(about["file"])) ?? []); }

  has(slice: number): boolean {
    const about = this.about(Math.floor(slice / 2 ** 32));
    return about !== undefined && slice % 2 ** 32 < numberOf(about["events"]);
  }
  hasTrack(track: number): boolean { return this.about(Math.floor(track / 2 ** 16)) !== undefined; }

  /** What a server would answer, or undefined where it takes more than the events. */
  answer(path: string, query: Query): Row | undefined {
    if (!this.any) return undefined;
    const number = (name: string): number => Number(query[name] ?? 0);
    const tracks = asNumbers(query["tracks"]);
    if (path.startsWith("slice/")) {
      const id = Number(path.slice(6));
      return this.has(id) ? this.file(Math.floor(id / 2 ** 32))?.slice(id % 2 ** 32) : undefined;
    }
    switch (path) {
      case "search": return this.search(String(query["q"] ?? ""), query["rank"] ?? null, number("limit"));
      case "range": return rangeOf(this.chosen(tracks), number("t0"), number("t1"), tracks.filter((track) => !this.hasTrack(track)).length);
      case "flame": return query["t0"] === undefined ? undefined : flameOf(this.chosen(tracks), number("t0"), number("t1"));
      case "flows": return this.flows(tracks, number("t0"), number("t1"), number("limit"));
      case "same_name": {
        const id = number("slice"), file = this.has(id) ? this.file(Math.floor(id / 2 ** 32)) : null;
        return file === null ? { id: null } : { id: file.sameName(id % 2 ** 32, number("forward") === 1) };
      }
      default: return undefined;
    }
  }

  private chosen(tracks: readonly number[]): { file: HeldFile; tracks: number[] }[] {
    const list = new Map<number, number[]>();
    for (const track of tracks) if (this.hasTrack(track)) list.set(Math.floor(track / 2 ** 16), [...(list.get(Math.floor(track / 2 ** 16)) ?? []), track]);
    return [...list].flatMap(([number, own]) => { const file = this.file(number); return file === null ? [] : [{ file, tracks: own }]; });
  }

  private search(query: string, rank: Json, limit: number): Row {
    const matches: Row[] = [];
    let total = 0;
    if (query !== "") {
      const test = nameTest(query);
      for (const file of this.files) {
        if (rank !== null && rank !== "" && Number(rank) !== file.rank) continue;
        const fits = file.names.map(test);
        for (let e = 0; e < file.count; ++e) {
          if (fits[file.name[e] ?? 0] !== true || file.isMark(e)) continue;
          if (++total <= limit) matches.push({ ...file.brief(e), rank: file.rank });
        }
      }
    }
    return { matches, total, next: null, ...(asksArguments(query) ? { incomplete: "arguments" } : {}) };
  }

  private flows(tracks: readonly number[], t0: number, t1: number, limit: number): Row {
    const all: Row[] = [];
    for (const { file, tracks: own } of this.chosen(tracks)) {
      const wanted = new Set(own);
      const inView = (e: number): boolean => (file.start[e] ?? 0) < t1 && file.end(e) >= t0;
      const seen = (e: number): boolean => inView(e) && wanted.has(file.trackOf(e));
      for (let i = 0; i < file.flowFrom.length; ++i) {
        const from = file.flowFrom[i] ?? 0, to = file.flowTo[i] ?? 0;
        if ((!seen(from) && !seen(to)) || (i >= file.firstLink && !inView(to))) continue;  // as the server: work that is out of view is none
        all.push({
          from: file.id(from), to: file.id(to), from_track: file.trackOf(from), to_track: file.trackOf(to),
          from_depth: file.depth(from), to_depth: file.depth(to), from_ns: file.start[from] ?? 0, to_ns: file.start[to] ?? 0,
        });
      }
    }
    const shown = Math.min(all.length, limit);
    return { flows: Array.from({ length: shown }, (_, i) => all[Math.floor((i * all.length) / shown)] ?? null), total: all.length, truncated: shown < all.length };
  }

  /** Ranks of which the report has a picture only. */
  others(ranks: readonly number[]): number[] { return ranks.filter((rank) => !this.ranks.includes(rank)); }
}

export function heldOf(report: Json | undefined, columns: (file: number) => Uint8Array, strings: (file: number) => Row): Held {
  return new Held(isRow(report) ? report : {}, columns, strings);
}
