// The timeline page: view, keys, panel and address put together.
import { ask, heldEvents, isReport } from "../api";
import { button, h } from "../dom";
import type { Json, Row } from "../format";
import { numberOf, rowsOf, textOf } from "../format";
import { idleWhile } from "../idle";
import { emptyNote } from "../parts";
import type { PageContext } from "./page";
import { state } from "../state";
import { t } from "../strings";
import { drawGutter } from "../timeline/gutter";
import { attachInput, keyHelp } from "../timeline/input";
import { parseTracks } from "../timeline/lanes";
import { Panel } from "../timeline/panel";
import type { Hit } from "../timeline/view";
import { TimelineView } from "../timeline/view";

/** What a search has not looked at, in words. */
function searchNote(answer: Row, ranks: readonly number[]): string {
  const others = heldEvents()?.others(ranks) ?? [], reason = textOf(answer["incomplete"]);
  return [reason === "arguments" ? t("a saved report holds no arguments: names were searched") : reason,
    others.length > 0 ? t("not searched: ranks {list}, of which this report holds a picture only", { list: rankList(others) }) : ""].filter((text) => text !== "").join(" · ");
}

/** "0–3, 7". */
export function rankList(ranks: readonly number[]): string {
  const parts: string[] = [];
  const sorted = [...ranks].sort((a, b) => a - b);
  for (let i = 0; i < sorted.length;) {
    let j = i;
    while (sorted[j + 1] === (sorted[j] ?? 0) + 1) ++j;
    parts.push(j > i ? `${sorted[i] ?? ""}–${sorted[j] ?? ""}` : String(sorted[i]));
    i = j + 1;
  }
  return parts.join(", ");
}

/** What a saved report holds of the timeline, in words; "" from a server. */
function holdings(ranks: readonly number[]): string {
  const held = heldEvents();
  if (held === null) return "";
  const others = held.others(ranks);
  if (!held.any) return t("This report holds a picture of the timeline, not its events: there is nothing to search or add up.");
  if (others.length === 0) return t("This report holds every event: search, sums and flows are exact; arguments are left out.");
  return t("This report holds every event of ranks {held}: their search, sums and flows are exact; of ranks {others} it holds a picture. Arguments are left out.",
    { held: rankList(held.ranks), others: rankList(others) });
}

export async function timelinePage(root: HTMLElement, { signal }: PageContext): Promise<void> {
  const document = await ask("tracks", {}, signal);
  const ranks = parseTracks(document);
  const reason = textOf(document["empty"]);
  if (ranks.length === 0 || reason !== "") {
    root.append(emptyNote(reason !== "" ? reason : t("No trace was found. Collect one with [profile] in the run file, or while a run goes on with: triptych profile start RUN_DIR")));
    return;
  }
  const view = new TimelineView(ranks, numberOf(document["begin_ns"]), numberOf(document["end_ns"]));
  if (isReport()) {
    const have = await ask("report");
    const list = (value: Json | undefined): number[] => (Array.isArray(value) ? value.map(Number) : []);
    view.tiles.report = rowsOf(have["sets"]).map((set) => ({ levels: list(set["levels"]), tracks: list(set["tracks"]) }));
    view.tiles.overviewLevel = Math.max(view.tiles.overviewLevel, ...view.tiles.report.flatMap((set) => set.levels));
  }
  const allTracks = ranks.flatMap((rank) => rank.tracks.filter((track) => track.kind !== "counter").map((track) => track.id));

  let found: Row[] = [];
  let position = -1;
  const message = h("span", { class: "muted", attrs: { "aria-live": "polite" } });
  const search = h("input", { attrs: { type: "search", placeholder: t("Search: name, key:value, /expression/"), "aria-label": t("Search the timeline") } });
  search.value = state.get("q");

  const save = (): void => {
    state.set({
      t0: Math.round(view.t0), t1: Math.round(view.t1), slice: view.selected?.id ?? null, q: search.value,
      r0: view.range === null ? null : Math.round(view.range.t0), r1: view.range === null ? null : Math.round(view.range.t1),
      tracks: view.range?.tracks?.join(",") ?? null, pins: view.lanes.pins.join(","), order: view.lanes.order.join(","),
    });
  };
  const showPanel = (on: boolean): void => { panel.element.hidden = !on; };
  const select = (hit: Hit | null): void => {
    view.selected = hit;
    view.draw();
    save();
    if (hit === null) return;
    showPanel(true);
    void panel.slice(hit.id, true, { name: hit.name, start_ns: hit.start, duration_ns: hit.dur, count: hit.count });
  };
  /** Shows an event known by its id, wherever it is. */
  const open = async (id: number, turn = true): Promise<void> => {
    showPanel(true);
    const slice = await panel.slice(id, turn);
    if (slice === null) return;
    const track = numberOf(slice["track"]), start = numberOf(slice["start_ns"]), dur = numberOf(slice["duration_ns"]);
    view.reveal(track, start, dur);
    const lane = view.lanes.laneOf(track);
    if (lane?.track !== null && lane !== undefined) {
      view.selected = { lane, track, file: lane.track.file, id, event: id % 2 ** 32, name: textOf(slice["name"]), count: 1,
        start: start + view.shiftOf(lane.track.file), dur, depth: numberOf(slice["depth"]) };
    }
    view.draw();
    save();
  };
  const panel = new Panel({ open: (slice) => { void open(numberOf(slice["id"])); }, close: () => { showPanel(false); } });
  panel.element.hidden = true;

  const runSearch = async (): Promise<void> => {
    const query = search.value.trim();
    found = [];
    position = -1;
    view.marks = [];
    view.fade(/^[^/:]+$/.test(query) ? query : "");
    save();
    if (query === "") { message.textContent = ""; view.draw(); return; }
    try {
      const answer = await ask("search", { q: query, limit: 2000 }, signal);
      found = rowsOf(answer["matches"]).sort((a, b) => numberOf(a["start_ns"]) - numberOf(b["start_ns"]));
      view.marks = found.map((match) => ({ track: numberOf(match["track"]), start: numberOf(match["start_ns"]), dur: numberOf(match["duration_ns"]) }));
      const total = numberOf(answer["total"], found.length);
      message.textContent = t("{n} matches", { n: total });
      showPanel(true);
      panel.matches(found, total, searchNote(answer, ranks.map((rank) => rank.rank)));
    } catch (error) {
      showPanel(true);
      panel.searchError(error);
    }
    view.draw();
  };
  const stepMatch = (forward: boolean): void => {
    if (found.length === 0) return;
    position = (position + (forward ? 1 : -1) + found.length) % found.length;
    message.textContent = `${position + 1} / ${found.length}`;
    void open(numberOf(found[position]?.["id"]), false);  // the list of matches stays in view
  };
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") void runSearch().then(() => { if (!event.shiftKey) stepMatch(true); view.canvas.focus(); });
    if (event.key === "Escape") { search.value = ""; void runSearch(); view.canvas.focus(); }
    event.stopPropagation();
  });

  const sameName = (forward: boolean): void => {
    if (view.selected === null) return;
    ask("same_name", { slice: view.selected.id, forward: forward ? 1 : 0 }, signal).then((answer) => {
      if (typeof answer["id"] === "number") void open(answer["id"]);
      else message.textContent = t("no other event of this name there");
    }).catch((error: unknown) => { message.textContent = String(error); });
  };
  const align = (edge: "start" | "end"): void => {
    if (view.selected === null) { message.textContent = t("choose an event first"); return; }
    void view.align(view.selected, edge).then((moved) => { message.textContent = t("{n} ranks moved", { n: moved }); });
  };
  const help = h("dialog", { class: "help", attrs: { "aria-label": t("Keys") } }, h("h2", {}, t("Keys")),
    h("dl", { class: "facts" }, ...keyHelp.flatMap(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, t(what))])),
    button(t("Close"), () => { help.close(); }));
  const flowsButton = button(t("Flows"), () => { toggleFlows(); }, { attrs: { "aria-pressed": "false" }, title: "E" });
  const toggleFlows = (): void => {
    view.flows.on = !view.flows.on;
    flowsButton.setAttribute("aria-pressed", String(view.flows.on));
    view.draw();
  };
  const flowsNote = h("span", { class: "muted", attrs: { role: "status" } });
  view.onFlows = () => {
    const { on, list, total } = view.flows;
    flowsNote.textContent = !on ? "" : total === 0 ? t("no flows here") : list.length < total
      ? t("{n} of {all} flows drawn; zoom in for all", { n: list.length, all: total }) : t("{n} flows", { n: total });
  };
  const detach = attachInput(view, {
    select, changed: save, match: stepMatch, sameName, align, flows: toggleFlows,
    selectRange: () => { if (view.range !== null) { showPanel(true); void panel.range(view.range, allTracks); } save(); },
    search: () => { search.focus(); search.select(); },
    panel: () => { showPanel(panel.element.hidden !== false); },
    help: () => { if (help.open) help.close(); else help.showModal(); },
    clear: () => { view.selected = null; view.range = null; view.box = null; view.draw(); save(); },
  });
  signal.addEventListener("abort", () => { detach(); view.close(); });
  idleWhile(() => view.still, signal);
  view.onLanes = () => { drawGutter(view, save); };

  root.classList.add("full");
  root.append(
    h("div", { class: "toolbar" }, search, button("[", () => { stepMatch(false); }, { title: t("Previous match"), attrs: { "aria-label": t("Previous match") } }),
      button("]", () => { stepMatch(true); }, { title: t("Next match"), attrs: { "aria-label": t("Next match") } }), flowsButton,
      button(t("Align starts"), () => { align("start"); }, { title: t("Move all ranks so that their event of this name starts together (L)") }),
      button(t("Undo alignment"), () => { view.shifts.clear(); view.draw(); }),
      button(t("Whole range"), () => { view.setWindow(view.begin, view.end); save(); }), button(t("Keys"), () => { help.showModal(); }, { title: "?" }), message, flowsNote),
    ...(isReport() ? [h("p", { class: "muted holdings", attrs: { role: "note" } }, holdings(ranks.map((rank) => rank.rank)))] : []), view.element, panel.element, help);

  view.lanes.pins = state.get("pins") === "" ? [] : state.get("pins").split(",");
  view.lanes.order = state.get("order") === "" ? [] : state.get("order").split(",");
  view.layoutChanged();
  const t0 = state.number("t0"), t1 = state.number("t1"), slice = state.number("slice"), r0 = state.number("r0"), r1 = state.number("r1");
  if (t0 !== null && t1 !== null && t1 > t0) view.setWindow(t0, t1);
  if (r0 !== null && r1 !== null && r1 > r0) {
    view.range = { t0: r0, t1: r1, tracks: state.get("tracks") === "" ? null : state.get("tracks").split(",").map(Number) };
    showPanel(true);
    void panel.range(view.range, allTracks);
  }
  if (search.value !== "") void runSearch();
  if (slice !== null) void (t0 === null ? open(slice) : panel.slice(slice).then(() => { showPanel(true); }));
  // For tests and for the curious: what the picture shows.
  Object.assign(window, { triptychTimeline: view });
}
