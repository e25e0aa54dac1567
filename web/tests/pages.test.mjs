// Every page on the traces of a made-up run: no errors, nothing from elsewhere, readable by machines,
// in light and dark. The screenshots are for people to look at.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { accessibilityProblems, closeBrowser, metricsRows, openPage, scratch, startViewer, syntheticRun, writeReport } from "./harness.mjs";

const pages = ["overview", "findings", "timeline", "operators", "communication", "parallelism", "memory", "critical", "training", "compare", "diagnostics"];
let run, baseline, viewer;

before(async () => {
  run = syntheticRun({ data: 2, pipeline: 4, steps: 4, slow_rank: 5, slow_link_from: 2, slow_link_to: 4, seed: 3 }, 300);
  baseline = syntheticRun({ data: 2, pipeline: 4, steps: 4, seed: 3 });
  viewer = await startViewer(run, "--baseline", baseline);
});
after(async () => {
  await viewer?.stop();
  await closeBrowser();
  for (const folder of [run, baseline]) if (folder) fs.rmSync(folder, { recursive: true });
});

for (const scheme of ["light", "dark"]) {
  test(`every page in ${scheme}`, async () => {
    const { page, go, idle, shot, check, close } = await openPage(viewer.url, { colorScheme: scheme });
    for (const name of pages) {
      await go(name);
      assert.equal(await page.locator("[role=alert]").count(), 0, `${name}: ${await page.locator("main").innerText()}`);
      assert.deepEqual(await accessibilityProblems(page), [], name);
      assert.ok((await page.locator("main").innerText()).length > 20, `${name} is blank`);
      await shot(`${name}-${scheme}`);
      for (const tab of await page.locator("main [role=tablist] [role=tab]").all()) {
        // In the dark tabs are the same elements; INSIGHT_SHOTS=all makes their pictures, too.
        if (name === "timeline" || (scheme === "dark" && process.env.INSIGHT_SHOTS !== "all")) break;
        const label = (await tab.innerText()).trim();
        await tab.click();
        await idle();
        assert.equal(await page.locator("[role=alert]").count(), 0, `${name}/${label}: ${await page.locator("main").innerText()}`);
        assert.deepEqual(await accessibilityProblems(page), [], `${name}/${label}`);
        await shot(`${name}-${label.toLowerCase().replaceAll(/\W+/g, "-")}-${scheme}`);
      }
    }
    check();
    await close();
  });
}

test("a page that is empty says why and what to do", async () => {
  const folder = syntheticRun({ data: 1, steps: 2, memory: 0, device: 0 });
  const lonely = await startViewer(folder);
  const { page, go, check, close } = await openPage(lonely.url);
  for (const [name, words] of [["training", /metrics\.jsonl/], ["compare", /--baseline/], ["memory", /memory/i]]) {
    await go(name);
    const text = await page.locator(".empty").first().innerText();
    assert.match(text, words, name);
    assert.ok(text.length > 40, `${name}: ${text}`);
  }
  check();
  await close();
  await lonely.stop();
  fs.rmSync(folder, { recursive: true });
});

test("pages of a trace that holds next to nothing name what to set", async () => {
  const folder = scratch();
  fs.writeFileSync(path.join(folder, "a_1.pt.trace.json"), JSON.stringify({ distributedInfo: { rank: 0 },
    traceEvents: [{ ph: "X", cat: "python_function", name: "main", pid: 1, tid: 1, ts: 1, dur: 2 }] }));
  const bare = await startViewer(folder);
  const { page, go, check, close } = await openPage(bare.url);
  for (const [name, tab, words] of [["parallelism", "pipeline", /parallel\.pipeline > 1 and profile\.level >= 1/], ["communication", "matrix", /profile\.level = 1/],
    ["operators", "kernels", /no device work was recorded/], ["operators", "flame&by=modules", /profile\.with_stack = true/], ["critical", "path", /ProfilerStep#n/]]) {
    await go(name, `?tab=${tab}`);
    assert.match(await page.locator("main .empty").first().innerText(), words, `${name}/${tab}`);
  }
  check();
  await close();
  await bare.stop();
  fs.rmSync(folder, { recursive: true });
});

test("the rank grid tells each rank's place and leads to its steps", async () => {
  const { page, go, idle, check, close } = await openPage(viewer.url);
  await go("parallelism", "?tab=layout");
  const cells = page.locator("main .rank-cell");
  assert.equal(await cells.count(), 8);
  // Ranks 2 s and 2 s + 1 are the two replicas of stage s.
  for (const [rank, place] of [[0, "t0 c0 d0 p0"], [1, "t0 c0 d1 p0"], [5, "t0 c0 d1 p2"], [7, "t0 c0 d1 p3"]]) {
    const text = await cells.nth(rank).innerText();
    assert.ok(text.includes(`rank ${rank}`) && text.includes(place), `${rank}: ${text}`);
  }
  await cells.nth(5).focus();
  const marked = await cells.evaluateAll((all) => all.flatMap((cell, i) => (cell.classList.contains("same") ? [i] : [])));
  assert.deepEqual(marked, [1, 3, 4, 5, 7], "its stage's ranks, and its replica's in the other stages");
  await cells.nth(5).click();
  await page.waitForFunction(() => document.querySelector("main").dataset.page === "overview");
  await idle();
  assert.match(page.url(), /#overview\?rank=5&by=step$/);
  const ranks = await page.locator("main tbody tr:not(.spacer)").evaluateAll((rows) => rows.map((row) => row.cells[0].textContent));
  assert.deepEqual(ranks, ["5", "5", "5", "5"], "its four steps");
  check();
  await close();
});

test("bars and cells of a matrix are walked with the arrows, and Enter opens", async () => {
  const { page, go, idle, shot, check, close } = await openPage(viewer.url);
  await go("overview");
  const bars = page.locator("main .chart").first();
  await page.locator("main [role=tab]").first().focus();
  while (await page.evaluate(() => document.activeElement.tagName !== "CANVAS")) await page.keyboard.press("Tab");
  assert.match(await bars.locator(".chosen").innerText(), /^rank 0 · .*compute only.*%/i);
  await page.keyboard.press("ArrowDown");
  assert.match(await bars.locator(".chosen").innerText(), /^rank 1 · /);
  await page.keyboard.press("End");
  assert.match(await bars.locator(".chosen").innerText(), /^rank 7 · /);
  await page.keyboard.press("ArrowDown");
  assert.match(await bars.locator(".chosen").innerText(), /^rank 7 · /, "there is none below");
  await shot("bars-chosen");
  await page.keyboard.press("Enter");
  await idle();
  assert.match(page.url(), /rank=7/);
  // The keyboard stays where it was: on the tab of what has been opened, not at the page's top.
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("role")), "tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "tab-step");
  const rank = page.locator("main label.field select").first();
  await rank.focus();
  await rank.selectOption("3");
  await idle();
  assert.ok(await page.evaluate(() => document.activeElement.tagName === "SELECT" && document.activeElement.value === "3"), "the choice keeps the focus");
  await go("communication", "?tab=matrix");
  const chart = page.locator("main .chart").first();
  await page.locator("main [role=tab]").first().focus();
  while (await page.evaluate(() => document.activeElement.tagName !== "CANVAS")) await page.keyboard.press("Tab");
  await page.keyboard.press("ArrowRight");
  const answer = await page.evaluate(async () => await (await fetch("api/v1/comm/matrix")).json());
  const cell = answer.cells.find(({ src, dst }) => src === 0 && dst === 1);
  const words = await chart.locator(".chosen").innerText();
  assert.ok(words.startsWith("0 → 1 · ") && words.includes(`count: ${cell.count}`), words);
  await page.keyboard.press("ArrowDown");
  assert.match(await chart.locator(".chosen").innerText(), /^1 → 1/);
  check();
  await close();
});

test("the comparison puts first what changed most, in both directions", async () => {
  const { page, go, idle, check, close } = await openPage(viewer.url);
  await go("compare");
  for (const [tab, table] of [["Summary", "summary"], ["Operators", "ops"], ["Communication", "comm"]]) {
    await page.locator("main [role=tab]", { hasText: tab }).click();
    await idle();
    assert.match(page.url(), new RegExp(`tab=${table}`));
    const answer = await page.evaluate(async (name) => await (await fetch(`api/v1/diff?table=${name}`)).json(), table);
    const names = await page.locator("main thead th").allInnerTexts();
    const rows = await page.locator("main tbody tr:not(.spacer)").evaluateAll((list) => list.map((row) => [...row.cells].map((cell) => cell.textContent)));
    const column = (word) => names.findIndex((name) => name.toLowerCase().startsWith(word));
    assert.deepEqual(rows.map((row) => row[column("key")]), answer.rows.map((row) => row.key), table);
    assert.deepEqual(rows.map((row) => row[column("change")]), answer.rows.map((row) => row.change), table);
    const deltas = answer.rows.map((row) => Math.abs(row.delta));
    assert.deepEqual(deltas, [...deltas].sort((a, b) => b - a), table);
  }
  // Rank 5 computes a fifth longer in this run, and no operator less.
  const ops = await page.evaluate(async () => await (await fetch("api/v1/diff?table=kernels")).json());
  assert.ok(ops.total.delta > 0);
  assert.ok(ops.rows.some((row) => row.change === "increased") && ops.rows[0].delta > 0, JSON.stringify(ops.rows[0]));
  check();
  await close();
});

test("the critical path says what a faster class would give", async () => {
  const { page, go, check, close } = await openPage(viewer.url);
  await go("critical", "?tab=path");
  const answer = await page.evaluate(async () => await (await fetch("api/v1/critical_path")).json());
  const rows = await page.locator("main .table", { hasText: "factor" }).locator("tbody tr:not(.spacer)")
    .evaluateAll((list) => list.map((row) => [...row.cells].map((cell) => cell.textContent)));
  const best = answer.what_if.reduce((least, row) => (row.length_ns < least.length_ns ? row : least));
  assert.equal(rows.length, answer.what_if.length);
  assert.ok(rows[0].includes(best.class), `${best.class} stands first: ${rows[0].join(" ")}`);
  assert.ok(best.length_ns < answer.length_ns);
  check();
  await close();
});

test("tables sort, filter, scroll and are saved as CSV", async () => {
  const { page, go, check, close } = await openPage(viewer.url);
  await go("operators");
  const column = (name) => page.locator(`main thead th:has-text("${name}")`).first();
  const index = await column("name").evaluate((cell) => cell.cellIndex);
  const names = () => page.locator("main tbody tr:not(.spacer)").evaluateAll((rows, i) => rows.map((row) => row.cells[i].textContent), index);
  await column("name").locator("button").click();
  assert.equal(await column("name").getAttribute("aria-sort"), "ascending");
  const sorted = await names();
  assert.deepEqual(sorted, [...sorted].sort((a, b) => a.localeCompare(b, "en", { numeric: true })));
  await column("name").locator("button").click();
  assert.equal(await column("name").getAttribute("aria-sort"), "descending");
  const wanted = sorted[0];
  await page.locator("main input[type=search]").first().fill(wanted);
  await page.waitForFunction((before) => document.querySelectorAll("main tbody tr:not(.spacer)").length < before, sorted.length);
  const kept = await page.locator("main tbody tr:not(.spacer)").allInnerTexts();
  assert.ok(kept.length > 0 && kept.every((row) => row.includes(wanted)), kept.join("\n"));
  assert.match(await page.locator("main .table .muted").first().innerText(), /\d+ (of \d+ )?rows/);
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("main button:has-text('CSV')").first().click()]);
  const text = fs.readFileSync(await download.path(), "utf8");
  assert.equal(download.suggestedFilename(), "ops.csv");
  assert.match(text.split("\r\n")[0], /name/);
  assert.ok(text.split("\r\n").length >= 2);
  check();
  await close();
});

test("every table of every page is saved as CSV", async () => {
  const { page, go, idle, check, close } = await openPage(viewer.url);
  let tables = 0;
  for (const name of pages.filter((other) => other !== "timeline")) {
    await go(name);
    const names = await page.locator("main [role=tablist] [role=tab]").allInnerTexts();
    for (let tab = 0; tab < Math.max(1, names.length); ++tab) {
      if (names.length > 0) { await page.locator("main [role=tablist] [role=tab]").nth(tab).click(); await idle(); }
      for (const save of await page.locator("main button:visible:has-text('CSV')").all()) {
        const [download] = await Promise.all([page.waitForEvent("download"), save.click()]);
        const lines = fs.readFileSync(await download.path(), "utf8").trimEnd().split("\r\n");
        assert.ok(lines.length >= 2 && lines[0].length > 3, `${name}/${names[tab] ?? ""}: ${download.suggestedFilename()} has ${lines.length} lines`);
        ++tables;
      }
    }
  }
  assert.ok(tables >= 25, `${tables} tables`);
  check();
  await close();
});

test("a finding leads to its place in the timeline", async () => {
  const { page, go, idle, check, close } = await openPage(viewer.url);
  for (const [kind, name] of [["slow rank", /^ProfilerStep#/], ["slow link", /send|recv|nccl|p2p/i]]) {
    await go("findings");
    await page.locator(".finding", { hasText: kind }).first().locator("a", { hasText: "Show in the timeline" }).click();
    await page.waitForFunction(() => document.querySelector("main").dataset.page === "timeline");
    await idle();
    assert.match(await page.locator(".bottom .slice-name").innerText(), name);
    assert.ok(await page.evaluate(() => { const { selected, t0, t1 } = window.triptychTimeline; return selected !== null && selected.start < t1 && selected.start + selected.dur > t0; }));
  }
  check();
  await close();
});

test("the flame follows the keys and the mouse, and its stacks add up", async () => {
  const { page, go, idle, shot, check, close } = await openPage(viewer.url);
  await go("operators", "?tab=flame");
  const words = page.locator("main .flame-words"), canvas = page.locator("main .plot canvas");
  assert.match(await words.innerText(), /^all · .* · 100\.0 %/);
  await canvas.focus();
  await page.keyboard.press("ArrowDown");
  const first = await words.innerText();
  await page.keyboard.press("ArrowRight");
  assert.notEqual(await words.innerText(), first);
  await page.keyboard.press("ArrowLeft");
  assert.equal(await words.innerText(), first);
  await page.keyboard.press("Enter");
  await page.keyboard.press("ArrowDown");
  assert.ok((await words.innerText()).startsWith(`${first.split(" · ")[0]} › `), "a call stands below its caller");
  await shot("flame-zoomed");
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("main button", { hasText: "Collapsed stacks" }).click()]);
  const lines = fs.readFileSync(await download.path(), "utf8").trimEnd().split("\n");
  assert.ok(lines.every((line) => /^[^;]+(;[^;]+)* \d+$/.test(line)), lines[0]);
  const answer = await page.evaluate(async () => await (await fetch("api/v1/flame")).json());
  const sum = lines.reduce((total, line) => total + Number(line.slice(line.lastIndexOf(" "))), 0);
  assert.ok(Math.abs(sum * 1000 - answer.total_ns) <= lines.length * 1000, "self times are the whole, to a microsecond a line");
  await page.locator("main select").nth(2).selectOption("modules");
  await idle();
  await page.locator("main .plot canvas").click({ position: { x: 30, y: 28 } });
  assert.match(await words.innerText(), /^model/);
  check();
  await close();
});

test("the pipeline's chart stands beside what it could be", async () => {
  const { page, go, shot, check, close } = await openPage(viewer.url);
  await go("parallelism", "?tab=pipeline");
  assert.equal(await page.locator("main .plot canvas").count(), 2);
  const share = async (label) => parseFloat(await page.locator(".card", { hasText: label }).locator("b").innerText());
  assert.ok(await share("Bubble, measured") > await share("Bubble, these times"), "links and a slow rank cost something");
  await shot("pipeline-ideal");
  check();
  await close();
});

test("what is shown stands in the address", async () => {
  const first = await openPage(viewer.url);
  await first.go("operators");
  await first.page.locator("main select").first().selectOption({ index: 1 });
  await first.idle();
  const address = first.page.url();
  assert.match(address, /#operators\?.*=/);
  const text = await first.page.locator("main").innerText();
  await first.close();
  const second = await openPage(address);
  await second.page.waitForFunction(() => document.querySelector("main")?.dataset.page === "operators");
  await second.idle();
  assert.equal(await second.page.locator("main").innerText(), text);
  second.check();
  await second.close();
});

test("Chinese, and a theme that stays", async () => {
  const { page, go, shot, check, close } = await openPage(viewer.url, { locale: "zh-CN" });
  await go("overview");
  assert.match(await page.locator("nav").innerText(), /概览/);
  assert.equal(await page.locator("html").getAttribute("lang"), "zh");
  await page.locator("header select").first().selectOption("dark");
  assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
  await shot("overview-chinese");
  await page.reload();
  await page.waitForSelector("nav a");
  assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
  await page.locator("header select").nth(1).selectOption("en");
  assert.match(await page.locator("nav").innerText(), /Overview/);
  check();
  await close();
});

test("the whole page is reached with the keyboard", async () => {
  const { page, go, check, close } = await openPage(viewer.url);
  await go("overview");
  await page.keyboard.press("Tab");
  assert.match(await page.evaluate(() => document.activeElement.className), /skip/);
  await page.locator("nav a").nth(3).focus();
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("main").dataset.page === "operators");
  await page.waitForSelector("main table");
  await page.locator("main [role=tab]").first().focus();
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.locator("main [role=tab]").nth(1).getAttribute("aria-selected"), "true");
  await page.waitForSelector("main .table-scroll");
  await page.locator("main .table-scroll").first().focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  assert.equal(await page.locator("main tr[aria-selected=true]").first().getAttribute("aria-rowindex"), "4");
  const outline = await page.locator("main .table-scroll").first().evaluate((element) => getComputedStyle(element).outlineStyle);
  assert.notEqual(outline, "none");
  check();
  await close();
});

test("curves go on while the run does", async () => {
  const folder = scratch();
  fs.mkdirSync(path.join(folder, "traces"));
  fs.writeFileSync(path.join(folder, "metrics.jsonl"), metricsRows(1, 50));
  const live = await startViewer(folder);
  const { page, go, shot, check, close } = await openPage(live.url);
  await go("training");
  assert.match(await page.locator("main [role=status]").innerText(), /50 rows/);
  fs.appendFileSync(path.join(folder, "metrics.jsonl"), metricsRows(51, 30));
  await page.waitForFunction(() => document.querySelector("main [role=status]").textContent.includes("80 rows"));
  await shot("training-live");
  // A resumed run replaces the file by one with fewer rows.
  fs.writeFileSync(path.join(folder, "next"), metricsRows(1, 60));
  fs.renameSync(path.join(folder, "next"), path.join(folder, "metrics.jsonl"));
  await page.waitForFunction(() => document.querySelector("main [role=status]").textContent.includes("60 rows"));
  check();
  await close();
  await live.stop();
  fs.rmSync(folder, { recursive: true });
});

test("a viewer with a token lets in who has it", async () => {
  const locked = await startViewer(run, "--token", "0123456789abcdef");
  const { page, go, check, close } = await openPage(locked.url);
  await go("overview");
  assert.ok(!page.url().includes("token"), page.url());
  assert.equal(await page.evaluate(() => document.cookie), "", "no script can read the token");
  check();
  await close();
  const other = await fetch(new URL("/api/v1/runs", locked.url));
  assert.equal(other.status, 401);
  await locked.stop();
});

test("the report is one file that works without a server", async () => {
  const file = path.join(scratch(), "report.html");
  writeReport(run, file, "--baseline", baseline, "--report-events", "0");
  assert.ok(fs.statSync(file).size < 15 << 20, `${fs.statSync(file).size} bytes`);
  const { page, go, idle, shot, check, close } = await openPage(`file://${file}`);
  for (const name of pages) {
    await go(name);
    assert.equal(await page.locator("[role=alert]").count(), 0, `${name}: ${await page.locator("main").innerText()}`);
    assert.ok((await page.locator("main").innerText()).length > 20, `${name} is blank`);
    await shot(`report-${name}`);
  }
  // Every finding leads to its page and to its place, though the report has neither other scopes nor other events.
  await go("findings");
  const findings = await page.locator(".finding").count();
  assert.ok(findings >= 2, `${findings} findings`);
  const kinds = await page.locator(".finding strong").allInnerTexts();
  for (let i = 0; i < findings; ++i) {
    for (const [label, wanted] of [["Show the page", null], ["Show in the timeline", "timeline"]]) {
      if (i > 0 || wanted !== null) await go("findings");
      const link = page.locator(".finding").nth(i).locator("a", { hasText: label });
      assert.equal(await link.count(), 1, `${kinds[i]}: ${label}`);
      const target = wanted ?? (await link.getAttribute("href")).match(/^#(\w+)/)[1];
      await link.click();
      await page.waitForFunction((name) => document.querySelector("main").dataset.page === name, target);
      await idle();
      assert.equal(await page.locator("[role=alert]").count(), 0, `${kinds[i]}, ${label}: ${await page.locator("main").innerText()}`);
      if (wanted === null) continue;
      assert.match(await page.locator(".bottom .slice-name").innerText(), /slow rank|step/i.test(kinds[i]) ? /^ProfilerStep#/ : /send|recv|nccl|p2p/i);
      assert.ok(await page.evaluate(() => { const { selected, t0, t1 } = window.triptychTimeline; return selected !== null && selected.start < t1 && selected.start + selected.dur > t0; }));
      assert.equal(await page.locator(".bottom .relation button").count(), 0, "events that are not in the report are no links");
    }
  }
  // Neither do rows and stacks lead to events that it does not hold.
  await go("operators", "?tab=flame");
  assert.equal(await page.locator("main button", { hasText: "To the timeline" }).count(), 0);
  await go("operators", "?tab=ops");
  assert.equal(await page.locator("main .table .toolbar", { hasText: "shows it in the timeline" }).count(), 0);
  await go("timeline");
  assert.match(await page.locator(".holdings").innerText(), /a picture of the timeline, not its events/);
  await page.waitForFunction(() => window.triptychTimeline.tiles.get(window.triptychTimeline.lanes.list.find((lane) => lane.track).track.id,
    window.triptychTimeline.tiles.overviewLevel, 0) !== undefined);
  check();
  await close();
});

test("a report with a full rank keeps its events one by one", async () => {
  const full = path.join(scratch(), "full.html");
  writeReport(run, full, "--full-rank", "5", "--report-events", "0");
  assert.throws(() => { writeReport(run, full, "--full-rank", "77"); }, /there is no trace of this rank/);
  const { page, go, idle, shot, check, close } = await openPage(`file://${full}`);
  await go("timeline");
  assert.match(await page.locator(".holdings").innerText(), /every event of ranks 5: .*of ranks 0–4, 6–7 it holds a picture/);
  // Zoomed to 6 ms, every event of rank 5 is itself.
  const events = async (rank, share) => {
    await page.evaluate(([wanted, part]) => {
      const view = window.triptychTimeline, middle = view.begin + (view.end - view.begin) * part;
      for (const other of view.ranks) view.lanes.collapsed[other.rank === wanted ? "delete" : "add"](`r${other.rank}`);
      view.layoutChanged();
      const stream = view.ranks.find((other) => other.rank === wanted).tracks.find((track) => track.kind === "stream");
      view.reveal(stream.id, middle, 1e5);
      view.setWindow(middle, middle + 6e6);
    }, [rank, share]);
    await idle();
    return await page.evaluate((wanted) => {
      const view = window.triptychTimeline, found = new Map();
      for (const lane of view.visibleLanes()) {
        if (lane.kind !== "track" || lane.rank !== wanted) continue;
        for (let depth = 0; depth < lane.rows; ++depth) for (let x = 1; x < view.width; x += 2) {
          const hit = view.hit(x, view.yOf(lane) + depth * 18 + 9);
          if (hit !== null) found.set(hit.id, hit.count);
        }
      }
      return { single: [...found.values()].filter((count) => count === 1).length, all: found.size };
    }, rank);
  };
  // In a pipeline's bubble there are few: somewhere in a step there are more.
  let most = { single: 0, all: 0 };
  for (let part = 0.3; part < 0.7; part += 0.05) {
    const mine = await events(5, part);
    assert.equal(mine.single, mine.all, `at ${part}`);
    if (mine.all > most.all) most = mine;
  }
  assert.ok(most.all > 5, JSON.stringify(most));
  await shot("report-full-rank");
  // What is not held is said, not left out in silence.
  await page.locator("input[type=search]").first().fill("dtype:BFloat16");
  await page.keyboard.press("Enter");
  await idle();
  assert.match(await page.locator(".bottom .sums").innerText(), /^0 matches.*no arguments.*not searched: ranks 0–4, 6–7/);
  check();
  await close();
});

test("a report answers from the events it holds what the server answers", async () => {
  const file = path.join(scratch(), "report.html");
  writeReport(run, file);
  assert.ok(fs.statSync(file).size < 15 << 20, `${fs.statSync(file).size} bytes`);
  const { page, go, idle, shot, check, close } = await openPage(`file://${file}`);
  const server = async (name, query) => await (await fetch(new URL(`/api/v1/${name}?${new URLSearchParams(query)}`, viewer.url))).json();
  const report = (name, query) => page.evaluate(([asked, with_]) => window.triptychAsk(asked, with_), [name, query]);
  const tracks = (await server("tracks", {})).ranks.slice(0, 3).flatMap((rank) => rank.processes.flatMap((process) => process.tracks))
    .filter((track) => track.kind !== "counter").map((track) => track.id).join(",");
  const { begin_ns: begin, end_ns: end } = await server("tracks", {});
  const middle = { tracks, t0: Math.round(begin + (end - begin) * 0.4321), t1: Math.round(begin + (end - begin) * 0.5678) };
  for (const [name, query] of [
    ["range", middle], ["range", { ...middle, t0: begin, t1: end }], ["flows", { ...middle, limit: 50 }],
    ["search", { q: "flash", limit: 2000 }], ["search", { q: "/^aten::(mm|addmm)$/", limit: 100, rank: 3 }], ["search", { q: "AllReduce", limit: 7 }],
  ]) {
    const [mine, theirs] = [await report(name, query), await server(name, query)];
    for (const answer of [mine, theirs]) {
      delete answer.left_out;
      delete answer.next;
      answer.rows?.sort((a, b) => (a.name + a.category < b.name + b.category ? -1 : 1));
    }
    assert.ok((theirs.rows ?? theirs.matches ?? theirs.flows).length > 0, name);
    assert.deepEqual(mine, theirs, `${name} ${JSON.stringify(query)}`);
  }
  // The flame of a range: the same paths and times, in whatever order.
  const paths = ({ nodes }) => {
    const whole = [];
    for (const node of nodes) whole.push((node.parent < 0 ? "" : `${whole[node.parent]};`) + node.name);
    return nodes.map(({ calls, total_ns, self_ns, device_ns }, i) => [whole[i], calls, total_ns, self_ns, device_ns].join(" ")).sort();
  };
  assert.deepEqual(paths(await report("flame", middle)), paths(await server("flame", middle)));
  // Events one by one: a kernel, the call that launched it, a step.
  for (const q of ["flash_fwd", "cudaLaunchKernel", "ProfilerStep#11"]) {
    const { id } = (await server("search", { q, limit: 40, rank: 2 })).matches.at(-1);
    const ids = (list) => list.map((event) => event.id).sort();
    const left = new Set(["args", "op"]);
    const facts = (slice) => Object.fromEntries(Object.entries(slice).filter(([name]) => !left.has(name))
      .map(([name, value]) => [name, ["flows_in", "flows_out", "kernels"].includes(name) ? ids(value) : value]));
    assert.deepEqual(facts(await report(`slice/${id}`, {})), facts(await server(`slice/${id}`, {})), q);
    for (const forward of [0, 1]) assert.deepEqual((await report("same_name", { slice: id, forward })).id, (await server(`slice/${id}`, {}))[forward ? "next" : "previous"]);
  }
  // The same by hand: a search whose matches open, a dragged range that adds up, its flame, arrows.
  await go("timeline");
  assert.match(await page.locator(".holdings").innerText(), /holds every event/);
  await page.locator("input[type=search]").first().fill("flash_fwd");
  await page.keyboard.press("Enter");
  await idle();
  assert.match(await page.locator(".bottom .sums").innerText(), /^\d+ matches/);
  await page.keyboard.press("]");
  await idle();
  assert.ok(await page.evaluate(() => window.triptychTimeline.selected.name.includes("flash_fwd")));
  await page.keyboard.press("m");
  await idle();
  assert.match(await page.locator(".bottom .sums").innerText(), /lanes · busy ([\d.]+ \S+) = self times \1/);
  await page.keyboard.press("e");
  await idle();
  await page.locator(".bottom [role=tab]", { hasText: "Flame" }).click();
  await idle();
  assert.equal(await page.locator(".bottom canvas").count(), 1);
  await shot("report-events");
  assert.equal(await page.locator("[role=alert]").count(), 0);
  check();
  await close();
});

test("names in a trace are text and nothing else", async () => {
  const folder = scratch();
  const evil = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'`\u0000\u202e";
  const events = [];
  for (let i = 0; i < 40; ++i) {
    events.push({ ph: "X", cat: "cpu_op", name: `${evil}${i % 3}`, pid: 1, tid: 1, ts: i * 100, dur: 80, args: { [evil]: evil, "Input Dims": evil } });
  }
  events.push({ ph: "X", cat: "user_annotation", name: "ProfilerStep#1", pid: 1, tid: 1, ts: 0, dur: 4000 });
  events.push({ ph: "M", name: "process_name", pid: 1, args: { name: evil } }, { ph: "M", name: "thread_name", pid: 1, tid: 1, args: { name: evil } });
  fs.writeFileSync(path.join(folder, `a_1.pt.trace.json`), JSON.stringify({ traceName: evil, mm: { model: evil }, distributedInfo: { rank: 0 }, traceEvents: events }));
  const hostile = await startViewer(folder);
  const { page, go, check, close } = await openPage(hostile.url);
  for (const name of pages) {
    await go(name);
    assert.equal(await page.locator("main img, main script, nav img, header img").count(), 0, name);
  }
  await go("timeline");
  await page.locator("input[type=search]").first().fill("<img");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector(".bottom .panel-body").textContent.includes("onerror"));
  assert.equal(await page.locator("main img, main script").count(), 0);
  check();
  await close();
  await hostile.stop();
  fs.rmSync(folder, { recursive: true });
});
