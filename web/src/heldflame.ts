// Call stacks of a range added up, from the events of a saved report; as src/insight/flame.cpp.
import type { HeldFile } from "./heldfile";
import type { Row } from "./format";

interface Node { name: string; parent: number; depth: number; calls: number; total: number; self: number; device: number; first: number }
const most = 4000;

/** "ProfilerStep#12" -> "ProfilerStep", "F stage 0 chunk 0 micro-batch 3" -> "F stage 0 chunk 0". */
const common = (name: string): string => name.replace(/^(.+)(?:#| micro-batch )\d+$/, "$1");

export function flameOf(chosen: readonly { file: HeldFile; tracks: readonly number[] }[], t0: number, t1: number): Row {
  const nodes: Node[] = [], index = new Map<string, number>();
  const child = (parent: number, name: string): number => {
    const key = `${parent}/${name}`;
    let at = index.get(key);
    if (at === undefined) {
      index.set(key, at = nodes.length);
      nodes.push({ name, parent, depth: (nodes[parent]?.depth ?? -1) + 1, calls: 0, total: 0, self: 0, device: 0, first: 0 });
    }
    return at;
  };
  for (const { file, tracks } of chosen) {
    const node = new Int32Array(file.count).fill(-1);
    for (const track of file.tracks) {
      if (track.device || !tracks.includes(track.id)) continue;
      for (let e = track.first; e < track.first + track.count; ++e) {
        const up = file.parent[e] ?? -1, above = up < 0 ? -1 : node[up] ?? -1;
        node[e] = above;
        const time = Math.min(file.end(e), t1) - Math.max(file.start[e] ?? 0, t0);
        if (time < 0 || (file.start[e] ?? 0) >= t1 || file.isMark(e) || file.categoryOf(e) === "overhead") continue;
        const at = node[e] = child(above, common(file.shown(e)));
        const own = nodes[at], caller = nodes[above];
        if (own === undefined) continue;
        if (own.calls++ === 0) own.first = file.id(e);
        own.total += time;
        own.self += time;
        if (caller !== undefined) caller.self -= time;
      }
    }
    // Device work, by the call that launched it.
    for (let i = file.firstLink; i < file.flowFrom.length; ++i) {
      const to = file.flowTo[i] ?? 0;
      if (file.workOf(to) === "") continue;
      for (let at = node[file.flowFrom[i] ?? 0] ?? -1; at >= 0; at = nodes[at]?.parent ?? -1) { const own = nodes[at]; if (own !== undefined) own.device += file.dur[to] ?? 0; }
    }
  }
  // A parent lasts at least as long as its children and was made before them, so the longest nodes are a tree as well.
  const weight = (node: Node): number => Math.max(node.total, node.device);
  const kept = nodes.map((node, i) => ({ node, i })).sort((a, b) => weight(b.node) - weight(a.node)).slice(0, most).sort((a, b) => a.i - b.i);
  const place = new Map<number, number>(), rows: Row[] = [];
  let total = 0;
  for (const { node, i } of kept) {
    if (node.parent >= 0 && !place.has(node.parent)) continue;
    if (node.parent < 0) total += node.total;
    place.set(i, rows.length);
    rows.push({ name: node.name, parent: place.get(node.parent) ?? -1, depth: node.depth, calls: node.calls, total_ns: node.total,
      self_ns: Math.max(0, node.self), device_ns: node.device, first_id: node.first });
  }
  return { nodes: rows, total_ns: total, left_out: nodes.length - rows.length, ...(rows.length === 0 ? { empty: "the host recorded nothing here; set profile.with_cpu = true" } : {}) };
}
