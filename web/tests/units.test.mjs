// Parts of the page that need no browser.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { loadModule } from "./harness.mjs";

const source = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../src");
const files = fs.readdirSync(source, { recursive: true }).filter((name) => name.endsWith(".ts"));
const textOf = (name) => fs.readFileSync(path.join(source, name), "utf8");

test("every word of the page has a Chinese one, and none is left over", async () => {
  const { zh } = await loadModule("zh.ts");
  const used = new Set();
  for (const name of files.filter((file) => file !== "zh.ts")) {
    for (const match of textOf(name).matchAll(/\bt\(\s*("(?:[^"\\]|\\.)*")/g)) used.add(JSON.parse(match[1]));
  }
  // Tables whose entries go through t() later.
  for (const match of textOf("main.ts").matchAll(/\["\w+", ("[^"]+"), \w+Page\]/g)) used.add(JSON.parse(match[1]));
  for (const match of textOf("timeline/input.ts").split("keyHelp")[1].split("];")[0].matchAll(/, ("[^"]+")\]/g)) used.add(JSON.parse(match[1]));
  for (const match of textOf("pages/communication.ts").matchAll(/\["\w+", ("[A-Z]\w+")\]/g)) used.add(JSON.parse(match[1]));
  for (const match of textOf("pages/compare.ts").matchAll(/\w+: ("[A-Z]\w+")/g)) used.add(JSON.parse(match[1]));
  assert.deepEqual([...used].filter((word) => !(word in zh)), [], "words without translation");
  assert.deepEqual(Object.keys(zh).filter((word) => !used.has(word)), [], "translations of no word");
  for (const [en, cn] of Object.entries(zh)) {
    const holes = (text) => [...text.matchAll(/\{\w+\}/g)].map(String).sort();
    assert.deepEqual(holes(cn), holes(en), en);
  }
});

test("numbers carry their units", async () => {
  const { time, bytes, show, exactTime, percent } = await loadModule("format.ts");
  assert.equal(time(1234), "1.234 µs");
  assert.equal(time(12345678), "12.35 ms");
  assert.equal(time(1.5e9), "1.5 s");
  assert.equal(time(0), "0");
  assert.equal(time(-2500), "-2.5 µs");
  assert.equal(time(NaN), "–");
  assert.equal(bytes(1536), "1.5 KiB");
  assert.equal(bytes(3 * 2 ** 30), "3 GiB");
  assert.equal(exactTime(1234567), "1 234 567 ns");
  assert.equal(percent(0.1234), "12.3 %");
  assert.equal(show("total_ns", 1000), "1 µs");
  assert.equal(show("bandwidth", 2.5e9), "2.5 GB/s");
  assert.equal(show("share", 0.5), "50.0 %");
  assert.equal(show("calls", 7), "7");
  assert.equal(show("sequence", 4294967309), "4294967309", "a number of an event is shown whole");
  assert.equal(show("src", -1), "–");
  assert.equal(show("gradient", 187200), "182.8 KiB");
  assert.equal(show("bytes", null), "–");
});

test("CSV quotes what must be quoted and runs no formula", async () => {
  const { csv, tsv } = await loadModule("format.ts");
  const rows = [{ name: "a,\"b\"\n", x: 1.5 }, { name: "=HYPERLINK(\"x\")", x: null }, { name: "-5", x: -5 }, { name: "+1" }, { name: "@x" }];
  assert.equal(csv(["name", "x"], rows), "name,x\r\n\"a,\"\"b\"\"\n\",1.5\r\n\"'=HYPERLINK(\"\"x\"\")\",\r\n'-5,-5\r\n'+1,\r\n'@x,\r\n");
  assert.equal(tsv(["name"], [{ name: "a\tb" }]).split("\n").length, 2);
});

test("tiles are read as the server writes them", async () => {
  const { parseTiles, tileSpan } = await loadModule("timeline/tiles.ts");
  // Two rows: one with one slice behind a word of padding, one with two behind none.
  const buffer = new ArrayBuffer(4 * (2 + 4 + 2 + 8 + 2 + 16));
  const view = new DataView(buffer);
  let at = 0;
  const u32 = (value) => { view.setUint32(at, value, true); at += 4; };
  const f64 = (value) => { view.setFloat64(at, value, true); at += 8; };
  const f32 = (value) => { view.setFloat32(at, value, true); at += 4; };
  [0x454c4954, 1, 65537, 7, 0, 2].forEach(u32);
  u32(0); u32(1);
  f64(-5); f64(20); u32(3); u32(9); u32(1); f32(1);
  u32(1); u32(2);
  f64(0); f64(4); f64(2); f64(2); u32(4); u32(5); u32(10); u32(11); u32(1); u32(6); f32(1); f32(0.5);
  const seen = [];
  parseTiles(buffer, 3, (track, index, tile) => { seen.push({ track, index, tile }); });
  assert.equal(seen.length, 1);
  const { track, index, tile } = seen[0];
  assert.equal(track, 65537);
  assert.equal(index, 7);
  assert.equal(tile.begin, 7 * tileSpan(3));
  assert.equal(tile.slices, 3);
  assert.deepEqual([...tile.rows[0].start], [-5]);
  assert.deepEqual([...tile.rows[1].start], [0, 4]);
  assert.deepEqual([...tile.rows[1].event], [10, 11]);
  assert.deepEqual([...tile.rows[1].covered], [1, 0.5]);
  assert.throws(() => { parseTiles(new ArrayBuffer(8), 3, () => undefined); });
});

test("lanes: pins stand first, moved lanes stay in their rank, collapsed ones have one row", async () => {
  const { Lanes } = await loadModule("timeline/lanes.ts");
  const track = (id, file, kind = "thread") => ({ id, file, rank: file, name: `t${id}`, process: "p", kind, depth: 3, count: 5, min: 0, max: 1 });
  const lanes = new Lanes([{ rank: 0, file: 0, tracks: [track(1, 0), track(2, 0, "stream")] }, { rank: 1, file: 1, tracks: [track(3, 1), track(4, 1, "counter")] }]);
  const keys = () => lanes.list.map((lane) => lane.key);
  assert.deepEqual(keys(), ["r0", "t1", "t2", "r1", "t3", "t4"]);
  lanes.pin("t3");
  assert.deepEqual(keys(), ["t3", "r0", "t1", "t2", "r1", "t4"]);
  assert.equal(lanes.pinnedHeight, lanes.list[0].height);
  lanes.move("t2", -1);
  assert.deepEqual(keys(), ["t3", "r0", "t2", "t1", "r1", "t4"]);
  lanes.move("t2", -1);
  assert.deepEqual(keys(), ["t3", "r0", "t2", "t1", "r1", "t4"]);
  lanes.move("t4", -1);
  assert.deepEqual(keys(), ["t3", "r0", "t2", "t1", "r1", "t4"], "a pinned lane is no neighbour");
  lanes.toggle("t1");
  assert.equal(lanes.laneOf(1).rows, 1);
  lanes.toggle("r0");
  assert.deepEqual(keys(), ["t3", "r0", "r1", "t4"]);
  assert.equal(lanes.list[1].track.id, 2, "a collapsed rank shows its stream");
  for (const lane of lanes.list) assert.equal(lanes.at(lane.top + lane.height / 2), lane);
});
