// How long until a trace is on the screen: node benchmarks/insight_first_picture.mjs TRACE      (after `npm ci` in web/, with a release build)
// From the start of the viewer to the timeline drawn with all its tiles, in headless Chromium that is open already: first without
// an index, then with the one that the first time has written.
import fs from "node:fs";
import { closeBrowser, openBrowser, openPage, startViewer } from "../web/tests/harness.mjs";

const trace = process.argv[2];
await openBrowser();
for (const what of ["without an index", "with its index"]) {
  if (what.startsWith("without")) fs.rmSync(`${trace}.mmidx`, { force: true });
  const began = Date.now();
  const viewer = await startViewer(trace);
  const { page, close } = await openPage(`${viewer.url}#timeline`);
  await page.waitForFunction(() => window.triptychTimeline !== undefined && window.triptychTimeline.width > 0 && !window.triptychTimeline.tiles.busy, null, { timeout: 300000 });
  const drawn = (Date.now() - began) / 1000;
  const status = fs.readFileSync(`/proc/${viewer.pid}/status`, "utf8");
  console.log(`first picture ${what}: ${drawn.toFixed(2)} s, peak memory of the viewer ${(Number(/VmHWM:\s+(\d+)/.exec(status)[1]) * 1024 / 1e6).toFixed(0)} MB`);
  await close();
  // The index is written behind the picture.
  for (let i = 0; i < 300 && !fs.existsSync(`${trace}.mmidx`); ++i) await new Promise((resolve) => setTimeout(resolve, 100));
  await viewer.stop();
}
await closeBrowser();
console.log(`${(fs.statSync(trace).size / 1e6).toFixed(0)} MB`);
