// The lanes of the timeline and where they stand: pinned ones first, then rank after rank.
import type { Row } from "../format";
import { numberOf, rowsOf, textOf } from "../format";

export const rowHeight = 18;
const headHeight = 22, gap = 4, counterHeight = 44;

export interface Track {
  id: number; file: number; rank: number; name: string; process: string; kind: string;
  depth: number; count: number; min: number; max: number;
}
export interface RankTracks { rank: number; file: number; tracks: Track[] }

export interface Lane {
  kind: "rank" | "track" | "counter";
  key: string;
  label: string;
  sub: string;
  track: Track | null;       // of a rank's head: the track that stands for it while collapsed
  rank: number;
  collapsed: boolean;
  pinned: boolean;
  top: number;               // px from the top of all lanes
  height: number;
  rows: number;
}

export function parseTracks(document: Row): RankTracks[] {
  return rowsOf(document["ranks"]).map((rank) => {
    const file = numberOf(rank["file"]), number = numberOf(rank["rank"], -1);
    const processes = rowsOf(rank["processes"]);
    const tracks = processes.flatMap((process) => rowsOf(process["tracks"]).map((track) => ({
      id: numberOf(track["id"]), file, rank: number, name: textOf(track["name"]) || "thread",
      process: textOf(process["name"]) || `pid ${textOf(process["pid"])}`, kind: textOf(track["kind"]) || "thread",
      depth: Math.max(1, numberOf(track["depth"], 1)), count: numberOf(track["count"]),
      min: numberOf(track["min"]), max: numberOf(track["max"]),
    })));
    return { rank: number, file, tracks };
  });
}

/** The track that says most about a rank: its busiest stream, else its busiest thread. */
function busiest(rank: RankTracks): Track | null {
  const streams = rank.tracks.filter((track) => track.kind === "stream");
  const pool = streams.length > 0 ? streams : rank.tracks.filter((track) => track.kind === "thread");
  return pool.reduce<Track | null>((best, track) => (best === null || track.count > best.count ? track : best), null);
}

export class Lanes {
  list: Lane[] = [];
  height = 0;
  pinnedHeight = 0;
  readonly collapsed = new Set<string>();
  pins: string[] = [];
  order: string[] = [];      // keys of tracks moved by hand, within their rank
  private readonly byTrack = new Map<number, Lane>();

  constructor(readonly ranks: RankTracks[]) {
    // With many ranks the first picture shows one line of each.
    if (ranks.length > 4) for (const rank of ranks) this.collapsed.add(`r${rank.rank}`);
    for (const rank of ranks) {
      for (const track of rank.tracks) if (track.count === 0 && track.kind !== "counter") this.collapsed.add(`t${track.id}`);
    }
    this.layout();
  }

  laneOf(track: number): Lane | undefined { return this.byTrack.get(track); }

  toggle(key: string): void {
    if (this.collapsed.has(key)) this.collapsed.delete(key); else this.collapsed.add(key);
    this.layout();
  }
  pin(key: string): void {
    this.pins = this.pins.includes(key) ? this.pins.filter((pin) => pin !== key) : [...this.pins, key];
    this.layout();
  }
  /** Moves a lane among its siblings (pins, or the tracks of its rank). */
  move(key: string, by: number): void {
    const pinned = this.pins.includes(key);
    const rank = this.ranks.find((r) => r.tracks.some((track) => `t${track.id}` === key));
    const keys = pinned ? [...this.pins] : rank === undefined ? [] : this.sorted(rank).map((track) => `t${track.id}`).filter((k) => !this.pins.includes(k));
    const from = keys.indexOf(key), to = from + by;
    if (from < 0 || to < 0 || to >= keys.length) return;
    keys.splice(from, 1);
    keys.splice(to, 0, key);
    if (pinned) this.pins = keys;
    else this.order = [...this.order.filter((k) => !keys.includes(k)), ...keys];
    this.layout();
  }

  private sorted(rank: RankTracks): Track[] {
    const place = new Map(this.order.map((key, i) => [key, i]));
    if (!rank.tracks.some((track) => place.has(`t${track.id}`))) return rank.tracks;
    return [...rank.tracks].sort((a, b) => (place.get(`t${a.id}`) ?? 1e9) - (place.get(`t${b.id}`) ?? 1e9));
  }

  layout(): void {
    this.list = [];
    this.byTrack.clear();
    let top = 0;
    const add = (lane: Omit<Lane, "top">): void => {
      this.list.push({ ...lane, top });
      const placed = this.list[this.list.length - 1];
      if (placed?.track !== null && placed?.track !== undefined && !this.byTrack.has(placed.track.id)) this.byTrack.set(placed.track.id, placed);
      top += lane.height;
    };
    const addTrack = (track: Track, pinned: boolean): void => {
      const key = `t${track.id}`, collapsed = this.collapsed.has(key);
      const counter = track.kind === "counter";
      const rows = collapsed ? 1 : track.depth;
      add({
        kind: counter ? "counter" : "track", key, label: track.name,
        sub: pinned ? `rank ${track.rank} · ${track.process}` : track.process, track, rank: track.rank, collapsed, pinned,
        height: counter ? (collapsed ? rowHeight + gap : counterHeight) : rows * rowHeight + gap, rows,
      });
    };
    const tracks = new Map(this.ranks.flatMap((rank) => rank.tracks.map((track) => [`t${track.id}`, track])));
    for (const pin of this.pins) {
      const track = tracks.get(pin);
      if (track !== undefined) addTrack(track, true);
    }
    this.pinnedHeight = top;
    for (const rank of this.ranks) {
      const key = `r${rank.rank}`, collapsed = this.collapsed.has(key);
      add({ kind: "rank", key, label: rank.rank < 0 ? "trace" : `rank ${rank.rank}`, sub: "", track: collapsed ? busiest(rank) : null,
        rank: rank.rank, collapsed, pinned: false, height: headHeight, rows: 1 });
      if (collapsed) continue;
      for (const track of this.sorted(rank)) if (!this.pins.includes(`t${track.id}`)) addTrack(track, false);
    }
    this.height = top;
  }

  /** The lane at y, px from the top of all lanes. */
  at(y: number): Lane | undefined {
    let low = 0, high = this.list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const lane = this.list[middle];
      if (lane !== undefined && lane.top + lane.height <= y) low = middle + 1; else high = middle;
    }
    return this.list[low];
  }
}
