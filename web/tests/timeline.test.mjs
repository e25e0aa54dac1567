// The timeline: keys, mouse, search, sums, lanes and the address.
import assert from "node:assert/strict";
import fs from "node:fs";
import { after, before, test } from "node:test";
import { accessibilityProblems, closeBrowser, openPage, startViewer, syntheticRun } from "./harness.mjs";

let run, viewer;
before(async () => {
  run = syntheticRun({ data: 2, pipeline: 1, steps: 4, seed: 5 });
  viewer = await startViewer(run);
});
after(async () => {
  await viewer?.stop();
  await closeBrowser();
  if (run) fs.rmSync(run, { recursive: true });
});

async function timeline(address = "#timeline") {
  const opened = await openPage(viewer.url + address);
  await opened.page.waitForFunction(() => window.triptychTimeline !== undefined && window.triptychTimeline.width > 0);
  const { page, idle: settle } = opened;
  await settle();
  return {
    ...opened, settle,
    view: () => page.evaluate(() => {
      const { t0, t1, scroll, range, selected } = window.triptychTimeline;
      return { t0, t1, scroll, range, selected: selected === null ? null : { name: selected.name, start: selected.start, dur: selected.dur, track: selected.track } };
    }),
    /** Holds a key until the view has changed so far: longer or shorter by a factor, moved by a share, scrolled by pixels. */
    hold: async (key, { factor = 1, share = 0, pixels = 0 }) => {
      const before = await page.evaluate(() => { const { t0, t1, scroll } = window.triptychTimeline; return { t0, t1, scroll }; });
      await page.keyboard.down(key);
      await page.waitForFunction(([was, by, part, down]) => {
        const view = window.triptychTimeline, length = was.t1 - was.t0, now = (view.t1 - view.t0) / length, moved = (view.t0 - was.t0) / length;
        return by < 1 ? now < by : by > 1 ? now > by : part < 0 ? moved < part : part > 0 ? moved > part : view.scroll - was.scroll >= down;
      }, [before, factor, share, pixels]);
      await page.keyboard.up(key);
      await settle();
    },
    /** A place of the canvas where the first single event of the first lane that has one is drawn. */
    anEvent: () => page.evaluate(() => {
      const view = window.triptychTimeline, box = view.canvas.getBoundingClientRect();
      for (const lane of view.visibleLanes()) {
        if (lane.kind !== "track") continue;
        for (let depth = lane.rows - 1; depth >= 0; --depth) {
          for (let x = 5; x < view.width; x += 3) {
            const y = view.yOf(lane) + depth * 18 + 9, hit = view.hit(x, y);
            if (hit !== null && hit.count === 1 && y > 30 && y < view.height) return { x: box.left + x, y: box.top + y, name: hit.name, id: hit.id };
          }
        }
      }
      return null;
    }),
    /** Share of the canvas that is not background. */
    painted: () => page.evaluate(() => {
      const { canvas } = window.triptychTimeline;
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      const seen = new Map();
      for (let i = 0; i < data.length; i += 4 * 7) {
        const key = `${data[i]},${data[i + 1]},${data[i + 2]}`;
        seen.set(key, (seen.get(key) ?? 0) + 1);
      }
      return { colours: seen.size, share: 1 - Math.max(...seen.values()) / (data.length / 28) };
    }),
  };
}

test("shows events, zooms and moves with the keys", async () => {
  const { page, view, hold, painted, settle, shot, check, close } = await timeline();
  const picture = await painted();
  assert.ok(picture.colours > 6 && picture.share > 0.05, JSON.stringify(picture));
  await page.mouse.move(800, 300);
  const start = await view();
  await hold("w", { factor: 0.5 });
  const closer = await view();
  assert.ok(closer.t1 - closer.t0 < (start.t1 - start.t0) * 0.5, "W zooms in");
  // The time under the cursor stays there.
  const under = (v) => v.t0 + ((800 - 168 - 210) / (1280 - 168 - 210)) * (v.t1 - v.t0);
  assert.ok(Math.abs(under(closer) - under(start)) < (start.t1 - start.t0) * 0.01);
  await hold("d", { share: 0.25 });
  const moved = await view();
  assert.ok(moved.t0 > closer.t0, "D moves right");
  await hold("a", { share: -0.25 });
  assert.ok((await view()).t0 < moved.t0, "A moves left");
  await hold("s", { factor: 1.5 });
  await settle();
  await shot("timeline-zoomed");
  await page.keyboard.press("Backspace");
  await page.keyboard.press("0");
  const all = await view();
  assert.ok(all.t1 - all.t0 >= (start.t1 - start.t0) * 0.95, "0 shows everything");
  await page.setViewportSize({ width: 1280, height: 300 });
  await settle();
  await hold("ArrowDown", { pixels: 20 });
  assert.ok((await view()).scroll > 0, "the arrow scrolls");
  check();
  await close();
});

test("an event chosen shows its arguments; F zooms to it; Esc lets go", async () => {
  const { page, view, anEvent, settle, hold, shot, check, close } = await timeline();
  await page.mouse.move(700, 400);
  await hold("w", { factor: 0.12 });
  await settle();
  const event = await anEvent();
  assert.ok(event !== null);
  await page.mouse.click(event.x, event.y);
  await page.waitForSelector(".bottom .slice-name");
  assert.equal(await page.locator(".bottom .slice-name").innerText(), event.name);
  assert.match(page.url(), new RegExp(`slice=${event.id}`));
  assert.deepEqual(await accessibilityProblems(page), []);
  await page.keyboard.press("f");
  const { t0, t1, selected } = await view();
  assert.ok(t0 <= selected.start && t1 >= selected.start + selected.dur && t1 - t0 < selected.dur * 1.5 + 50);
  await settle();
  await shot("timeline-event");
  await page.keyboard.press(".");
  await page.waitForFunction((before) => window.triptychTimeline.selected.start !== before, selected.start);
  const next = (await view()).selected;
  assert.equal(next.name, selected.name);
  assert.ok(next.start > selected.start);
  await page.keyboard.press(",");
  await page.waitForFunction((before) => window.triptychTimeline.selected.start === before, selected.start);
  await page.keyboard.press("m");
  await page.waitForSelector(".bottom .sums");
  assert.ok((await view()).range !== null);
  await page.keyboard.press("Escape");
  assert.equal((await view()).range, null);
  check();
  await close();
});

test("a dragged range has sums that add up", async () => {
  const { page, settle, shot, check, close } = await timeline();
  const box = await page.locator("canvas.tracks").boundingBox();
  const asked = page.waitForResponse((response) => response.url().includes("/range?"));
  await page.mouse.move(box.x + 120, box.y + 60);
  await page.mouse.down();
  await page.mouse.move(box.x + 500, box.y + box.height - 20, { steps: 5 });
  await page.mouse.up();
  const sum = await (await asked).json();
  const busy = sum.busy.reduce((total, row) => total + row.busy_ns, 0), self = sum.rows.reduce((total, row) => total + row.self_ns, 0);
  assert.ok(busy > 0);
  assert.equal(self, busy, "self times add up to busy times");
  await page.waitForSelector(".bottom .sums");
  const text = await page.locator(".bottom .sums").innerText();
  const parts = /busy (\S+ [a-zµ]+) = self times (\S+ (?:ns|µs|ms|s))/.exec(text);
  assert.equal(parts?.[1], parts?.[2], text);
  await settle();
  await shot("timeline-range");
  await page.locator(".bottom [role=tab]", { hasText: "Flame of the range" }).click();
  await settle();
  assert.match(await page.locator(".bottom .flame-words").innerText(), /^all · /);
  await shot("timeline-flame");
  await page.locator(".bottom [role=tab]").nth(1).click();
  assert.deepEqual(await accessibilityProblems(page), []);
  check();
  await close();
});

test("search finds by name, argument and expression, and walks through the matches", async () => {
  const { page, view, shot, settle, close } = await timeline();
  await page.keyboard.press("/");
  await page.keyboard.type("ProfilerStep");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".bottom table");
  const count = Number(/(\d+) matches/.exec(await page.locator(".bottom .sums, main .toolbar .muted").first().innerText())?.[1] ?? (await page.locator(".bottom .sums").innerText()).match(/\d+/)[0]);
  assert.ok(count >= 8, `${count} matches`);  // 4 steps of 2 ranks
  await page.waitForFunction(() => window.triptychTimeline.selected !== null);
  const first = (await view()).selected;
  await page.keyboard.press("]");
  await page.waitForFunction((before) => window.triptychTimeline.selected.start !== before.start || window.triptychTimeline.selected.track !== before.track, first);
  await page.keyboard.press("[");
  await page.waitForFunction((before) => window.triptychTimeline.selected.start === before.start && window.triptychTimeline.selected.track === before.track, first);
  await settle();
  await shot("timeline-search");
  await page.locator("main input[type=search]").first().fill("/^ProfilerStep#1[12]$/");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => /^4 matches/.test(document.querySelector(".bottom .sums")?.textContent ?? ""));
  await page.locator("main input[type=search]").first().fill("/(/");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".bottom [role=alert], .bottom .sums");
  // The browser itself reports the refused question; nothing else may go wrong.
  await close();
});

test("lanes can be pinned, moved and folded, and the address remembers", async () => {
  const { page, check, close, shot } = await timeline();
  const lanes = (p) => p.evaluate(() => window.triptychTimeline.lanes.list.map((lane) => lane.key));
  const before = await lanes(page);
  const tracks = before.filter((key) => key.startsWith("t"));
  await page.locator(`[data-key="${tracks[1]}/pin"]`).focus();
  await page.keyboard.press("Enter");
  assert.equal((await lanes(page))[0], tracks[1]);
  assert.equal(await page.evaluate(() => document.activeElement.dataset.key), `${tracks[1]}/pin`, "the focus stays");
  await page.locator(`[data-key="${tracks[0]}/down"]`).click();
  const moved = await lanes(page);
  assert.ok(moved.indexOf(tracks[0]) > moved.indexOf(tracks[2]), JSON.stringify(moved));
  await shot("timeline-pinned");
  const address = page.url();
  assert.match(address, /pins=t/);
  check();
  await close();
  const again = await openPage(address);
  await again.page.waitForFunction(() => window.triptychTimeline !== undefined && window.triptychTimeline.width > 0);
  assert.deepEqual(await lanes(again.page), moved);
  await again.page.locator(".lane.rank .fold").first().click();
  assert.ok((await lanes(again.page)).length < moved.length);
  again.check();
  await again.close();
});

test("flows and alignment on a common operation", async () => {
  const { page, shot, settle, check, close } = await timeline();
  await page.keyboard.press("e");
  await page.waitForFunction(() => window.triptychTimeline.flows.list.length > 0);
  await settle();
  assert.match(await page.locator("main .toolbar").innerText(), /600 of \d+ flows drawn; zoom in for all/);
  await shot("timeline-flows");
  await page.evaluate(() => { const view = window.triptychTimeline; view.setWindow(view.begin, view.begin + (view.end - view.begin) / 50); });
  await settle();
  assert.match(await page.locator("main .toolbar").innerText(), /\b\d+ flows$/m);
  assert.ok(await page.evaluate(() => window.triptychTimeline.flows.list.length === window.triptychTimeline.flows.total));
  await page.keyboard.press("0");
  await page.locator("main input[type=search]").first().fill("ProfilerStep#12");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => window.triptychTimeline.selected?.name === "ProfilerStep#12");
  await page.keyboard.press("l");
  await page.waitForFunction(() => window.triptychTimeline.shifts.size === 1);
  const gap = await page.evaluate(async () => {
    const view = window.triptychTimeline;
    const answer = await (await fetch("api/v1/search?q=ProfilerStep%2312&limit=100")).json();
    const starts = answer.matches.filter((match) => match.name === "ProfilerStep#12" && view.lanes.laneOf(match.track)).map((match) => match.start_ns + view.shiftOf(Math.floor(match.track / 65536)));
    return Math.max(...starts) - Math.min(...starts);
  });
  assert.ok(gap < 2, `the steps start ${gap} ns apart`);
  await shot("timeline-aligned");
  check();
  await close();
});

test("an older question for flows is given up", async () => {
  const { page, settle, check, close } = await timeline();
  const failed = [];
  let release = () => undefined, asked = 0;
  page.on("requestfailed", (request) => { if (request.url().includes("/flows?")) failed.push(request.failure().errorText); });
  await page.route("**/api/v1/flows?*", async (route) => {
    if (++asked === 1) await new Promise((resolve) => { release = resolve; });
    await route.continue().catch(() => undefined);
  });
  const first = page.waitForRequest((request) => request.url().includes("/flows?"));
  await page.keyboard.press("e");
  await first;
  await page.evaluate(() => { const view = window.triptychTimeline; view.setWindow(view.begin, view.begin + (view.end - view.begin) / 50); });
  await page.waitForFunction(() => window.triptychTimeline.flows.list.length > 0);
  assert.deepEqual(failed, ["net::ERR_ABORTED"]);
  release();
  await settle();
  const { list, total } = await page.evaluate(() => ({ list: window.triptychTimeline.flows.list.length, total: window.triptychTimeline.flows.total }));
  assert.equal(list, total, "the later answer stays");
  check();
  await close();
});

test("keys have a help", async () => {
  const { page, check, close, shot } = await timeline();
  await page.keyboard.press("?");
  assert.ok(await page.locator("dialog.help").isVisible());
  await shot("timeline-help");
  await page.keyboard.press("Escape");
  assert.ok(!(await page.locator("dialog.help").isVisible()));
  check();
  await close();
});
