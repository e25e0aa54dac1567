// Starts the viewer on made-up runs, and a browser that reports whatever goes wrong on a page.
import { chromium } from "playwright-core";
import { build } from "esbuild";
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const fromBuild = (name) => path.join(root, "build/release/tests", name);
const viewerProgram = process.env.INSIGHT_VIEWER ?? fromBuild("insight_viewer");
const syntheticProgram = process.env.INSIGHT_SYNTHETIC ?? fromBuild("insight_synthetic");
export const outFolder = process.env.INSIGHT_OUT ?? path.join(root, "build/release/web");
fs.mkdirSync(outFolder, { recursive: true });

export function scratch() { return fs.mkdtempSync(path.join(os.tmpdir(), "insight-page-")); }

/** A run directory with traces of a made-up run; settings as `insight_synthetic` takes them. */
export function syntheticRun(settings = {}, rows = 0) {
  const folder = scratch();
  fs.mkdirSync(path.join(folder, "traces"));
  execFileSync(syntheticProgram, [path.join(folder, "traces"), ...Object.entries(settings).map(([name, value]) => `${name}=${value}`)]);
  if (rows > 0) fs.writeFileSync(path.join(folder, "metrics.jsonl"), metricsRows(1, rows));
  return folder;
}

export function metricsRows(from, count) {
  let text = "";
  for (let step = from; step < from + count; ++step) {
    text += JSON.stringify({ step, loss: 3 * Math.exp(-step / 60) + 0.1 * Math.sin(step), lr: 1e-5 * Math.min(1, step / 20), grad_norm: 1 + 1 / step,
      tokens_per_second: 21000 + 500 * Math.sin(step / 5), step_seconds: 1.2, mfu: 0.41, peak_memory_bytes: 4.2e9 }) + "\n";
  }
  return text;
}

/** Starts `triptych insight`; gives its address once it prints one. */
export async function startViewer(folder, ...flags) {
  const child = spawn(viewerProgram, ["insight", folder, ...flags], { stdio: ["ignore", "pipe", "pipe"] });
  let errors = "";
  child.stderr.on("data", (data) => { errors += data; });
  const url = await new Promise((resolve, reject) => {
    let text = "";
    child.stdout.on("data", (data) => {
      text += data;
      if (text.includes("\n")) resolve(text.trim());
    });
    child.on("exit", (code) => { reject(new Error(`the viewer ended with ${code}: ${errors}`)); });
  });
  return {
    url, pid: child.pid,
    stop: () => new Promise((resolve) => {
      child.removeAllListeners("exit");
      child.on("exit", resolve);
      child.kill("SIGTERM");
    }),
  };
}

export function writeReport(folder, file, ...flags) {
  execFileSync(viewerProgram, ["insight", folder, "--report", file, ...flags], { stdio: "pipe" });
}

// Nothing here waits for a time: the tests wait for states, and this is only how long until they give up.
const patience = 240_000;
let browser;
export async function openBrowser() {
  browser ??= await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    timeout: patience,
    args: ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
  });
  return browser;
}
export async function closeBrowser() { await browser?.close(); browser = undefined; }

/** A page of 1280x720 that fails the test (check()) on errors, foreign requests and dialogs. */
export async function openPage(url, options = {}) {
  const context = await (await openBrowser()).newContext({
    viewport: { width: 1280, height: 720 }, colorScheme: "light", locale: "en-US", acceptDownloads: true, ...options,
  });
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  const problems = [];
  const origin = new URL(url).origin;
  page.on("console", (message) => { if (message.type() === "error" || message.type() === "warning") problems.push(`console: ${message.text()}`); });
  page.on("pageerror", (error) => { problems.push(`error: ${error.message}`); });
  page.on("dialog", (dialog) => { problems.push(`dialog: ${dialog.message()}`); void dialog.dismiss(); });
  page.on("request", (request) => {
    const asked = request.url();
    if (!asked.startsWith("blob:") && !asked.startsWith("data:") && new URL(asked).origin !== origin) problems.push(`foreign request: ${asked}`);
  });
  await page.goto(url);
  await page.waitForFunction(() => window.triptychIdle !== undefined);
  /** Waits until the page has nothing more to ask for, to wait for or to draw. */
  const idle = () => page.evaluate(() => window.triptychIdle());
  return {
    page, idle,
    go: async (name, query = "") => {
      await page.evaluate(() => { document.querySelector("main").removeAttribute("data-page"); });
      await page.evaluate((hash) => { location.hash = hash; }, `#${name}${query}`);
      await page.waitForFunction((wanted) => document.querySelector("main").dataset.page === wanted, name);
      await idle();
      assert.equal(await page.locator("[aria-busy]").count(), 0, `${name} still loads`);
    },
    shot: (name) => page.screenshot({ path: path.join(outFolder, `${name}.png`) }),
    check: () => { assert.deepEqual(problems, []); },
    close: () => context.close(),
  };
}

/** One of the page's modules, loaded here. */
export async function loadModule(source) {
  const result = await build({ entryPoints: [path.join(root, "web/src", source)], bundle: true, write: false, format: "esm", target: "es2022" });
  const file = path.join(scratch(), "module.mjs");
  fs.writeFileSync(file, result.outputFiles[0].text);
  return await import(pathToFileURL(file).href);
}

/** What is wrong with the page for those who do not see or do not use a mouse. */
export function accessibilityProblems(page) {
  return page.evaluate(() => {
    const problems = [];
    const nameOf = (element) => (element.getAttribute("aria-label") ?? "").trim() || (element.textContent ?? "").trim() || element.getAttribute("title") || "";
    for (const element of document.querySelectorAll("button, a[href], summary")) if (nameOf(element) === "") problems.push(`no name: ${element.tagName + "." + element.className}`);
    for (const element of document.querySelectorAll("input, select")) {
      if (element.closest("label") === null && !element.getAttribute("aria-label")) problems.push(`no label: ${element.tagName + "." + element.className}`);
    }
    for (const element of document.querySelectorAll("canvas")) if (!element.getAttribute("aria-label") || !element.getAttribute("role")) problems.push("a canvas without role and label");
    for (const element of document.querySelectorAll("table")) {
      if (!element.getAttribute("aria-label")) problems.push("a table without label");
      for (const cell of element.querySelectorAll("thead th")) if (cell.getAttribute("scope") !== "col") problems.push("a head cell without scope");
    }
    const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
    if (new Set(ids).size !== ids.length) problems.push("an id occurs twice");
    if (document.documentElement.scrollWidth > window.innerWidth) problems.push(`wider than the window: ${document.documentElement.scrollWidth}`);
    if (document.querySelectorAll("main").length !== 1 || document.querySelectorAll("nav").length !== 1) problems.push("not one main and one nav");
    return problems;
  });
}
