// The events of the timeline as the server sends them: tiles of 512 buckets of 2^level ns.
// A tile that is not there yet is asked for, and meanwhile stood for by a coarser one.
import { ask, askBinary, heldEvents, isReport } from "../api";
import type { Held } from "../held";
import { textOf } from "../format";

export interface SliceRow {
  depth: number;
  start: Float64Array;      // ns since the tile's start
  dur: Float64Array;
  name: Uint32Array;
  event: Uint32Array;
  count: Uint32Array;       // 1: this very event; more: so many, named after the longest
  covered: Float32Array;
}
export interface Tile { begin: number; span: number; rows: SliceRow[]; used: number; slices: number }

const magic = 0x454c4954;
export const tileSpan = (level: number): number => 512 * 2 ** level;

export function parseTiles(buffer: ArrayBuffer, level: number, take: (track: number, index: number, tile: Tile) => void): void {
  const words = new Uint32Array(buffer, 0, buffer.byteLength >> 2);
  if (words[0] !== magic) throw new Error("this is no answer with tiles");
  let at = 2;
  const next = (): number => words[at++] ?? 0;
  for (let block = words[1] ?? 0; block > 0; --block) {
    const track = next(), low = next(), high = next() | 0, numRows = next();
    const index = high * 2 ** 32 + low;
    const rows: SliceRow[] = [];
    let slices = 0;
    for (let r = 0; r < numRows; ++r) {
      const depth = next(), n = next();
      if (at % 2 === 1) ++at;
      const byte = at * 4;
      rows.push({
        depth,
        start: new Float64Array(buffer, byte, n),
        dur: new Float64Array(buffer, byte + 8 * n, n),
        name: new Uint32Array(buffer, byte + 16 * n, n),
        event: new Uint32Array(buffer, byte + 20 * n, n),
        count: new Uint32Array(buffer, byte + 24 * n, n),
        covered: new Float32Array(buffer, byte + 28 * n, n),
      });
      at += 8 * n;
      slices += n;
    }
    const span = tileSpan(level);
    take(track, index, { begin: index * span, span, rows, used: 0, slices });
  }
}

/** A tile of events that a saved report holds; as from_events of src/insight/tiles.cpp. */
export function tileOf(held: Held, id: number, level: number, index: number): Tile {
  const span = tileSpan(level), bucket = 2 ** level, t0 = index * span;
  const tile: Tile = { begin: t0, span, rows: [], used: 0, slices: 0 };
  const file = held.file(Math.floor(id / 2 ** 16));
  file?.track(id)?.rows.forEach((row, depth) => {
    const [first, last] = file.between(row, t0, t0 + span);
    const start: number[] = [], dur: number[] = [], event: number[] = [], count: number[] = [], covered: number[] = [];
    let current = -1, sum = 0, longest = -1;
    for (let e = first; e < last; ++e) {
      const at = (file.start[e] ?? 0) - t0, length = file.dur[e] ?? 0, n = start.length - 1;
      if (at + length <= 0 && !(length === 0 && at >= 0)) continue;
      const place = Math.floor(Math.max(0, at) / bucket);
      if (length < bucket && place === current) {
        sum += length;
        count[n] = (count[n] ?? 0) + 1;
        if (length > longest) { longest = length; event[n] = e; }
        const whole = dur[n] = at + length - (start[n] ?? 0);
        covered[n] = whole > 0 ? Math.min(1, sum / whole) : 1;
      } else {
        start.push(at); dur.push(length); event.push(e); count.push(1); covered.push(1);
        current = length < bucket ? place : -1;
        sum = longest = length;
      }
    }
    if (start.length === 0) return;
    tile.rows.push({ depth, start: Float64Array.from(start), dur: Float64Array.from(dur), name: Uint32Array.from(event, (e) => file.name[e] ?? 0),
      event: Uint32Array.from(event), count: Uint32Array.from(count), covered: Float32Array.from(covered) });
    tile.slices += start.length;
  });
  return tile;
}

/** What a saved report holds instead of everything: tracks that were asked together, at these levels. */
export interface ReportTiles { levels: number[]; tracks: number[] }

export class TileStore {
  private readonly byTrack = new Map<number, Map<number, Map<number, Tile>>>();
  private readonly asked = new Set<string>();
  private inFlight = 0;
  private slices = 0;
  private clock = 0;
  overviewLevel = 0;
  report: readonly ReportTiles[] | null = null;
  private readonly held: Held | null = heldEvents()?.any === true ? heldEvents() : null;

  constructor(private readonly changed: () => void, private readonly failed: (error: unknown) => void) {}

  get(track: number, level: number, index: number): Tile | undefined {
    let tile = this.byTrack.get(track)?.get(level)?.get(index);
    if (tile === undefined && this.held?.hasTrack(track) === true) {
      tile = tileOf(this.held, track, level, index);
      this.put(track, level, index, tile);
    }
    if (tile !== undefined) tile.used = ++this.clock;
    return tile;
  }

  /** The level whose buckets are about a pixel wide, among those that can be had. */
  levelFor(nsPerPixel: number): number {
    const level = Math.max(0, Math.min(this.overviewLevel, Math.floor(Math.log2(Math.max(1, nsPerPixel)))));
    if (this.report === null || this.held !== null) return level;
    const levels = this.report.flatMap((set) => set.levels).sort((a, b) => a - b);
    return levels.find((have) => have >= level) ?? levels[levels.length - 1] ?? level;
  }

  /** A tile that covers [begin of index] at a coarser level. */
  coarser(track: number, level: number, index: number): Tile | undefined {
    const levels = this.byTrack.get(track);
    if (levels === undefined) return undefined;
    for (let up = 1; level + up <= this.overviewLevel; ++up) {
      const tile = levels.get(level + up)?.get(Math.floor(index / 2 ** up));
      if (tile !== undefined) { tile.used = ++this.clock; return tile; }
    }
    return undefined;
  }

  /** Asks for what is missing of these tiles; at most two questions at a time. */
  want(level: number, first: number, last: number, tracks: readonly number[]): void {
    if (this.report === null) { this.wantFrom(null, level, first, last, tracks); return; }
    for (const set of this.report) {  // those of tracks that are held one by one are made in get()
      const have = set.levels.find((candidate) => candidate >= level);
      if (have === undefined) continue;
      const coarser = 2 ** (have - level);
      this.wantFrom(set, have, Math.floor(first / coarser), Math.floor(last / coarser), tracks.filter((track) => set.tracks.includes(track)));
    }
  }

  private wantFrom(set: ReportTiles | null, level: number, first: number, last: number, allowed: readonly number[]): void {
    if (this.inFlight >= 2) return;
    const missing: number[] = [];
    const tiles = new Set<number>();
    for (const track of allowed) {
      let lacks = false;
      for (let index = first; index <= last; ++index) {
        if (this.byTrack.get(track)?.get(level)?.has(index) === true || this.asked.has(`${track}/${level}/${index}`)) continue;
        lacks = true;
        tiles.add(index);
      }
      if (lacks) missing.push(track);
      if (missing.length >= 64) break;
    }
    if (missing.length > 0) void this.fetch(set, level, [...tiles].sort((a, b) => a - b), missing);
  }

  private async fetch(from: ReportTiles | null, level: number, tiles: number[], tracks: number[]): Promise<void> {
    // A saved report answers exactly one tile of all tracks of a set.
    const sets = from === null ? [tiles] : tiles.map((tile) => [tile]);
    const wanted = from?.tracks ?? tracks;
    const keys = wanted.flatMap((track) => tiles.map((index) => `${track}/${level}/${index}`));
    for (const key of keys) this.asked.add(key);
    ++this.inFlight;
    try {
      for (const set of sets) {
        const buffer = await askBinary("tiles", { level, tiles: set.join(","), tracks: wanted.join(",") });
        const seen = new Set<string>();
        parseTiles(buffer, level, (track, index, tile) => {
          seen.add(`${track}/${index}`);
          this.put(track, level, index, tile);
        });
        // A track without events there is not sent: remember that it is empty.
        for (const track of wanted) {
          for (const index of set) {
            if (!seen.has(`${track}/${index}`)) {
              this.put(track, level, index, { begin: index * tileSpan(level), span: tileSpan(level), rows: [], used: 0, slices: 0 });
            }
          }
        }
      }
      for (const key of keys) this.asked.delete(key);
    } catch (error) {
      if (!isReport()) {
        this.failed(error);
        setTimeout(() => { for (const key of keys) this.asked.delete(key); this.changed(); }, 2000);
      }
    } finally {
      --this.inFlight;
      this.changed();
    }
  }

  private put(track: number, level: number, index: number, tile: Tile): void {
    let levels = this.byTrack.get(track);
    if (levels === undefined) this.byTrack.set(track, levels = new Map<number, Map<number, Tile>>());
    let tiles = levels.get(level);
    if (tiles === undefined) levels.set(level, tiles = new Map<number, Tile>());
    tile.used = ++this.clock;
    this.slices += tile.slices - (tiles.get(index)?.slices ?? 0);
    tiles.set(index, tile);
    if (this.slices > 3e6) this.shrink();
  }

  /** Forgets the half that was not used for longest; never the coarsest level. */
  private shrink(): void {
    const limit = this.clock - 4000;
    for (const levels of this.byTrack.values()) {
      for (const [level, tiles] of levels) {
        if (level >= this.overviewLevel) continue;
        for (const [index, tile] of tiles) {
          if (tile.used < limit) { tiles.delete(index); this.slices -= tile.slices; }
        }
      }
    }
  }

  get busy(): boolean { return this.inFlight > 0; }
}

/** Names of one file, fetched as far as they are needed. */
export class Names {
  readonly list: string[] = [];
  private loading = false;
  private done = false;
  constructor(private readonly file: number, private readonly changed: () => void) {}

  get(id: number): string | undefined {
    const name = this.list[id];
    if (name === undefined && !this.done && !this.loading) void this.load();
    return name;
  }

  private async load(): Promise<void> {
    this.loading = true;
    try {
      const from = this.list.length;
      const document = await ask("strings", { file: this.file, from });
      const strings = document["strings"];
      if (!Array.isArray(strings) || strings.length === 0) this.done = true;
      else for (const text of strings) this.list.push(textOf(text));
    } catch {
      this.done = true;
    }
    this.loading = false;
    this.changed();
  }
}
