// Frame times of the timeline on five million events while panning and zooming, in headless Chromium.
//   node benchmarks/insight_frames.mjs [EVENTS] [OUT.json]      (after `npm ci` in web/, with a release build)
// Every frame interval between key down and key up counts, also those in which tiles arrive.
import fs from "node:fs";
import { closeBrowser, openPage, startViewer, syntheticRun } from "../web/tests/harness.mjs";

const events = Number(process.argv[2] ?? 5e6);
// Two ranks; about six records an operator and micro-batch on a rank, kernels, launches and memory included.
const run = syntheticRun({ data: 2, steps: 10, layers: 30, ops: 10, micro_batches: Math.max(1, Math.round(events / 2 / (10 * 30 * 10 * 6.05))) });
const began = Date.now();
const viewer = await startViewer(run);
const opened = await openPage(`${viewer.url}#timeline`);
const { page } = opened;
await page.waitForFunction(() => window.triptychTimeline !== undefined && window.triptychTimeline.width > 0 && !window.triptychTimeline.tiles.busy, null, { timeout: 300000 });
const firstPicture = (Date.now() - began) / 1000;
const held = await page.evaluate(async () => (await (await fetch("api/v1/runs")).json()).runs[0].files.reduce((sum, file) => sum + file.events, 0));

await page.evaluate(() => {
  window.frameTimes = [];
  window.recording = false;
  let last = performance.now();
  const tick = (now) => {
    if (window.recording) window.frameTimes.push(now - last);
    last = now;
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
});
await page.mouse.move(800, 350);
async function hold(key, ms) {
  await page.keyboard.down(key);
  await page.evaluate(() => { window.recording = true; });
  await page.waitForTimeout(ms);
  await page.evaluate(() => { window.recording = false; });
  await page.keyboard.up(key);
}
for (const [key, ms] of [["w", 1500], ["d", 1500], ["a", 1500], ["w", 1500], ["d", 1500], ["w", 1500], ["a", 1500], ["s", 2000], ["ArrowDown", 700], ["ArrowUp", 700], ["s", 2500]]) {
  await hold(key, ms);
}
const times = (await page.evaluate(() => window.frameTimes)).sort((a, b) => a - b);
const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))];
const heap = await page.evaluate(() => performance.memory?.usedJSHeapSize ?? 0);
const result = {
  events: held, frames: times.length, median_ms: at(0.5), p95_ms: at(0.95), p99_ms: at(0.99), worst_ms: times[times.length - 1],
  within_33_ms: times.filter((time) => time <= 33.4).length / times.length, first_picture_s: firstPicture, heap_mb: heap / 1e6,
};
console.log(JSON.stringify(result, null, 1));
if (process.argv[3]) fs.writeFileSync(process.argv[3], JSON.stringify(result));
await opened.close();
await closeBrowser();
await viewer.stop();
fs.rmSync(run, { recursive: true });
