// Sums over a range of the timeline, from the events of a saved report; as range_json of src/insight/timeline.cpp.
import type { HeldFile } from "./heldfile";
import type { Row } from "./format";

/** The union of [begin, end) pairs as pairs apart, in order. */
function merged(intervals: [number, number][]): [number, number][] {
  const list: [number, number][] = [];
  for (const [begin, end] of intervals.filter((i) => i[1] > i[0]).sort((a, b) => a[0] - b[0])) {
    const last = list[list.length - 1];
    if (last !== undefined && begin <= last[1]) last[1] = Math.max(last[1], end); else list.push([begin, end]);
  }
  return list;
}

/** Length of the union of [begin, end) pairs. */
export function unionLength(intervals: [number, number][]): number {
  intervals.sort((a, b) => a[0] - b[0]);
  let length = 0, reached = -Infinity;
  for (const [begin, end] of intervals) {
    length += Math.max(0, end - Math.max(begin, reached));
    reached = Math.max(reached, end);
  }
  return length;
}

interface Sum { name: string; category: string; work: string; count: number; total: number; self: number; least: number; most: number }

export function rangeOf(chosen: readonly { file: HeldFile; tracks: readonly number[] }[], t0: number, t1: number, leftOut: number): Row {
  const sums = new Map<string, Sum>(), works = new Map<string, [number, number][]>();
  const busy: Row[] = [];
  for (const { file, tracks } of chosen) {
    for (const id of tracks) {
      // An event's own time is what no event of a deeper row covers.
      let covered: [number, number][] = [];
      for (const row of [...(file.track(id)?.rows ?? [])].reverse()) {
        const [first, last] = file.between(row, t0, t1);
        const here: [number, number][] = [];
        let reached = -Infinity, at = 0;
        for (let e = first; e < last; ++e) {
          const begin = Math.max(file.start[e] ?? 0, t0), end = Math.min(file.end(e), t1), length = end - begin;
          if (length < 0 || file.isMark(e)) continue;
          const from = Math.max(begin, reached);
          let self = Math.max(0, end - from);
          while ((covered[at]?.[1] ?? Infinity) <= from) ++at;
          for (let c = at; (covered[c]?.[0] ?? Infinity) < end; ++c) self -= Math.max(0, Math.min(covered[c]?.[1] ?? 0, end) - Math.max(covered[c]?.[0] ?? 0, from));
          reached = Math.max(reached, end);
          here.push([begin, Math.max(begin, reached)]);
          const work = file.workOf(e), key = `${file.category[e] ?? 0}/${file.nameOf(e)}`;
          if (work !== "") {
            const list = works.get(work);
            if (list === undefined) works.set(work, [[begin, end]]); else list.push([begin, end]);
          }
          let sum = sums.get(key);
          if (sum === undefined) sums.set(key, sum = { name: file.shown(e), category: file.categoryOf(e), work: file.workOf(e), count: 0, total: 0, self: 0, least: Infinity, most: 0 });
          ++sum.count;
          sum.total += length;
          sum.self += self;
          sum.least = Math.min(sum.least, length);
          sum.most = Math.max(sum.most, length);
        }
        covered = merged([...covered, ...here]);
      }
      const length = unionLength(covered);
      busy.push({ track: id, busy_ns: length, share: t1 > t0 ? length / (t1 - t0) : 0 });
    }
  }
  const rows = [...sums.values()].sort((a, b) => b.self - a.self).map((sum): Row => ({
    name: sum.name, category: sum.category, class: sum.work, count: sum.count, total_ns: sum.total, self_ns: sum.self,
    avg_ns: Math.floor(sum.total / sum.count), min_ns: sum.least, max_ns: sum.most,
  }));
  return { t0, t1, rows, busy, classes: Object.fromEntries([...works].map(([work, list]) => [`${work}_ns`, unionLength(list)])), left_out: leftOut };
}
