// The frame around the pages: navigation, theme, language, progress of the load.
import { ApiError, ask, isReport, listen, openReport } from "./api";
import { button, h, replace, select } from "./dom";
import type { Row } from "./format";
import { during, whenIdle } from "./idle";
import { bytes, numberOf, textOf } from "./format";
import { communicationPage } from "./pages/communication";
import { comparePage } from "./pages/compare";
import { criticalPage } from "./pages/critical";
import { diagnosticsPage } from "./pages/diagnostics";
import { findingsPage } from "./pages/findings";
import { memoryPage } from "./pages/memory";
import { operatorsPage } from "./pages/operators";
import { overviewPage } from "./pages/overview";
import type { Page } from "./pages/page";
import { parallelismPage } from "./pages/parallelism";
import type { RunInfo } from "./pages/scope";
import { runInfo } from "./pages/scope";
import { timelinePage } from "./pages/timeline";
import { trainingPage } from "./pages/training";
import { emptyNote, errorNote } from "./parts";
import { state } from "./state";
import { currentLanguage, setLanguage, t } from "./strings";
import type { Mode } from "./theme";
import { setTheme, startTheme, themeMode } from "./theme";

const pages: readonly (readonly [string, string, Page])[] = [
  ["overview", "Overview", overviewPage], ["findings", "Findings", findingsPage], ["timeline", "Timeline", timelinePage],
  ["operators", "Operators and kernels", operatorsPage], ["communication", "Communication", communicationPage],
  ["parallelism", "Parallelism", parallelismPage], ["memory", "Memory", memoryPage], ["critical", "Critical path", criticalPage],
  ["training", "Training curves", trainingPage], ["compare", "Comparison", comparePage], ["diagnostics", "Diagnostics", diagnosticsPage],
];
/** Pages that need no trace. */
const early = new Set(["training"]);

const main = h("main", { attrs: { id: "main", tabindex: -1 } });
const nav = h("nav", { attrs: { "aria-label": "pages" } });
const header = h("header", {});
let info: RunInfo = { run: {}, ranks: [], steps: [], spans: [] };
let about: Row = {};
let loaded = false;
let leaving = new AbortController();

function drawFrame(): void {
  document.documentElement.lang = currentLanguage();
  replace(header, h("h1", {}, "Triptych Insight"), h("span", { class: "run" }, textOf(about["name"])),
    isReport() && h("span", { class: "chip" }, t("saved report")),
    !isReport() && button(t("Save report"), () => { location.href = "api/v1/export.html"; }, { title: t("One HTML file that needs no server") }),
    select(t("Theme"), [["system", t("as the system")], ["light", t("light")], ["dark", t("dark")]], themeMode(), (mode) => { setTheme(mode as Mode); }),
    select(t("Language"), [["en", "English"], ["zh", "中文"]], currentLanguage(), (language) => {
      setLanguage(language === "zh" ? "zh" : "en");
      drawFrame();
      void during(show());
    }));
  replace(nav, ...pages.map(([id, name]) => h("a", { attrs: { href: `#${id}`, "aria-current": id === current() ? "page" : undefined } }, t(name))));
}

const current = (): string => (pages.some(([id]) => id === state.page) ? state.page : "overview");

async function show(): Promise<void> {
  leaving.abort();
  const signal = (leaving = new AbortController()).signal;
  main.className = "";
  for (const link of nav.querySelectorAll("a")) {
    if (link.getAttribute("href") === `#${current()}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  const entry = pages.find(([id]) => id === current());
  if (entry === undefined) return;
  document.title = `${t(entry[1])} · ${textOf(about["name"])} · Triptych Insight`;
  if (!loaded && !early.has(entry[0])) { waiting(about); return; }
  replace(main);
  try {
    await entry[2](main, { info, signal, baseline: about["baseline"] === true });
  } catch (error) {
    if (!signal.aborted) main.append(errorNote(error));
  }
  if (!signal.aborted) main.dataset["page"] = entry[0];
}

function waiting(progress: Row): void {
  const failure = textOf(progress["failure"]);
  if (failure !== "") { replace(main, emptyNote(failure)); return; }
  const done = numberOf(progress["bytes_done"]), total = numberOf(progress["bytes_total"]);
  const meter = h("progress", { attrs: { max: Math.max(1, total), value: done, "aria-label": t("Reading traces") } });
  replace(main, h("h2", {}, t("Reading traces")), meter, h("p", { class: "muted", attrs: { role: "status" } },
    `${bytes(done)} / ${bytes(total)} · ${numberOf(progress["files_done"])} / ${numberOf(progress["files_total"])}`));
}

async function ready(): Promise<void> {
  try {
    info = runInfo(await ask("runs"));
    loaded = true;
  } catch (error) {
    replace(main, errorNote(error));
    return;
  }
  drawFrame();
  if (!early.has(current()) || main.childElementCount === 0) await show();
}

async function start(): Promise<void> {
  startTheme();
  document.body.append(h("div", { class: "app" }, header, nav, main));
  document.body.prepend(h("a", { class: "skip", attrs: { href: "#main" }, on: { click: (event: MouseEvent) => { event.preventDefault(); main.focus(); } } }, t("To the content")));
  try {
    await openReport();
    about = await ask("info");
  } catch (error) {
    replace(main, errorNote(error instanceof ApiError && error.status === 401 ? new Error(t("This viewer needs its token: open the address that was printed.")) : error));
    return;
  }
  drawFrame();
  state.onPage(() => { void during(show()); });
  state.start();
  if (about["loaded"] === true) { await ready(); return; }
  const source = listen({
    progress: (progress) => { about = { ...about, ...progress }; if (!loaded && !early.has(current())) waiting(progress); },
    loaded: (progress) => { source?.close(); about = { ...about, ...progress }; if (textOf(progress["failure"]) !== "") waiting(progress); else void during(ready()); },
  });
}

// For the tests of the page.
Object.assign(window, { triptychIdle: whenIdle, triptychAsk: ask });
void during(start());
