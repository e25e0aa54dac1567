// Keys and mouse of the timeline.
import { h } from "../dom";
import { exactTime, time } from "../format";
import { t } from "../strings";
import type { Hit, TimelineView } from "./view";
import { rulerHeight } from "./view";

export interface Actions {
  select: (hit: Hit | null) => void;
  selectRange: () => void;                     // view.range has changed
  changed: () => void;                         // window, scroll: for the address
  search: () => void;                          // put the cursor into the search field
  match: (forward: boolean) => void;
  sameName: (forward: boolean) => void;
  align: (edge: "start" | "end") => void;
  panel: () => void;
  flows: () => void;
  help: () => void;
  clear: () => void;
}

export const keyHelp: readonly (readonly [string, string])[] = [
  ["W / S", "zoom in / out at the cursor"], ["A / D", "move left / right; hold for more"],
  ["← → ↑ ↓", "move and scroll"], ["Ctrl + wheel", "zoom at the cursor"], ["Shift + wheel", "move left / right"],
  ["drag", "select a range"], ["Ctrl + drag", "move"], ["Alt + drag", "zoom to the box"],
  ["M", "select the range of the chosen event"], ["F or Shift + Z", "zoom to the selection"],
  ["Backspace", "back to the view before"], ["0", "show everything"], ["/", "search"], ["[ ]", "previous / next match"],
  [". ,", "next / previous event of the same name"], ["L / R", "align all ranks at the start / end of the chosen event"],
  ["E", "flows on / off"], ["P", "pin the lane under the cursor"], ["C", "collapse the lane under the cursor"],
  ["Q", "panel on / off"], ["Esc", "clear the selection"], ["?", "this help"],
];

export function attachInput(view: TimelineView, actions: Actions): () => void {
  const canvas = view.canvas;
  const held = new Set<string>();
  const history: [number, number][] = [];
  let speed = 0, last = 0;
  let cursor = { x: 0, y: 0 };
  let drag: { kind: "range" | "move" | "zoom"; x: number; y: number; t0: number; t1: number; scroll: number; moved: boolean } | null = null;
  const tip = h("div", { class: "tip", attrs: { "aria-hidden": "true", hidden: true } });
  view.element.appendChild(tip);

  const remember = (): void => {
    const top = history[history.length - 1];
    if (top === undefined || top[0] !== view.t0 || top[1] !== view.t1) history.push([view.t0, view.t1]);
    if (history.length > 100) history.shift();
  };
  const at = (): number => view.timeAt(Math.max(0, Math.min(view.width, cursor.x)));

  // Held keys move by time, not by the keyboard's repetition, and faster the longer they are held.
  view.onFrame.push(() => {
    const now = performance.now(), passed = Math.min(0.05, (now - last) / 1000);
    last = now;
    if (held.size === 0) { speed = 0; return; }
    speed = Math.min(3, speed + passed * 2.5);
    const by = passed * (0.6 + speed);
    if (held.has("a") || held.has("ArrowLeft")) view.pan(-by);
    if (held.has("d") || held.has("ArrowRight")) view.pan(by);
    if (held.has("w")) view.zoom(Math.exp(-by * 2), at());
    if (held.has("s")) view.zoom(Math.exp(by * 2), at());
    if (held.has("ArrowUp")) view.scrollTo(view.scroll - by * 500);
    if (held.has("ArrowDown")) view.scrollTo(view.scroll + by * 500);
  });

  const zoomToSelection = (): void => {
    const chosen = view.range ?? (view.selected === null ? null : { t0: view.selected.start, t1: view.selected.start + view.selected.dur });
    if (chosen === null) return;
    remember();
    const pad = Math.max((chosen.t1 - chosen.t0) * 0.05, 10);
    view.setWindow(chosen.t0 - pad, chosen.t1 + pad);
    actions.changed();
  };

  const press = (event: KeyboardEvent): void => {
    const target = event.target;
    if (target instanceof HTMLInputElement || target instanceof HTMLSelectElement || target instanceof HTMLTextAreaElement) return;
    if (document.querySelector("dialog[open]") !== null && event.key !== "?") return;
    const moves = ["w", "a", "s", "d", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey && key === "f") { actions.search(); event.preventDefault(); return; }
    if (event.ctrlKey && key === "0") { remember(); view.setWindow(view.begin, view.end); actions.changed(); event.preventDefault(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (moves.includes(key)) {
      // In a table below, arrows belong to the table.
      if (key.startsWith("Arrow") && target instanceof Element && target.closest(".table-scroll, [role=tablist]") !== null) return;
      if (!held.has(key)) { if (held.size === 0) { remember(); last = performance.now(); } held.add(key); }
      event.preventDefault();
      return;
    }
    const lane = view.laneAt(cursor.y);
    switch (event.key) {
      case "m": case "M":
        if (view.selected !== null) { view.range = { t0: view.selected.start, t1: view.selected.start + view.selected.dur, tracks: null }; actions.selectRange(); view.draw(); }
        break;
      case "f": case "F": case "Z": zoomToSelection(); break;
      case "Backspace": { const before = history.pop(); if (before !== undefined) view.setWindow(...before); actions.changed(); break; }
      case "0": remember(); view.setWindow(view.begin - (view.end - view.begin) * 0.01, view.end + (view.end - view.begin) * 0.01); actions.changed(); break;
      case "/": actions.search(); break;
      case "[": actions.match(false); break;
      case "]": actions.match(true); break;
      case ",": actions.sameName(false); break;
      case ".": actions.sameName(true); break;
      case "l": case "L": actions.align("start"); break;
      case "r": case "R": actions.align("end"); break;
      case "e": case "E": actions.flows(); break;
      case "p": case "P": if (lane !== undefined && lane.kind !== "rank") { view.lanes.pin(lane.key); view.layoutChanged(); actions.changed(); } break;
      case "c": case "C": if (lane !== undefined) { view.lanes.toggle(lane.key); view.layoutChanged(); actions.changed(); } break;
      case "q": case "Q": actions.panel(); break;
      case "?": actions.help(); break;
      case "Escape": actions.clear(); break;
      default: return;
    }
    event.preventDefault();
  };
  const release = (event: KeyboardEvent): void => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (held.delete(key) && held.size === 0) actions.changed();
  };
  const blur = (): void => { held.clear(); };
  document.addEventListener("keydown", press);
  document.addEventListener("keyup", release);
  window.addEventListener("blur", blur);

  const place = (event: MouseEvent): { x: number; y: number } => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  canvas.addEventListener("mousedown", (event) => {
    if (event.button !== 0) return;
    canvas.focus();
    const { x, y } = place(event);
    drag = { kind: event.ctrlKey ? "move" : event.altKey ? "zoom" : "range", x, y, t0: view.t0, t1: view.t1, scroll: view.scroll, moved: false };
    event.preventDefault();
  });
  const move = (event: MouseEvent): void => {
    cursor = place(event);
    if (drag === null) {
      const inside = event.target === canvas;
      const hit = inside ? view.hit(cursor.x, cursor.y) : null;
      canvas.style.cursor = hit === null ? "crosshair" : "pointer";
      tip.hidden = hit === null;
      if (hit !== null) {
        tip.textContent = `${hit.name}\n${hit.count > 1 ? t("{n} events; zoom in to see them apart", { n: hit.count }) : `${time(hit.dur)}  (${exactTime(hit.dur)})`}`;
        const box = view.element.getBoundingClientRect();
        tip.style.left = `${Math.min(event.clientX - box.left + 14, box.width - 320)}px`;
        tip.style.top = `${Math.min(event.clientY - box.top + 14, box.height - 50)}px`;
      }
      return;
    }
    if (Math.abs(cursor.x - drag.x) + Math.abs(cursor.y - drag.y) > 3) drag.moved = true;
    if (!drag.moved) return;
    tip.hidden = true;
    if (drag.kind === "move") {
      const by = (cursor.x - drag.x) / view.scale;
      view.setWindow(drag.t0 - by, drag.t1 - by);
      view.scrollTo(drag.scroll - (cursor.y - drag.y));
    } else {
      view.box = { x0: drag.x, x1: cursor.x };
      view.draw();
    }
  };
  const up = (event: MouseEvent): void => {
    if (drag === null) return;
    const { x, y } = place(event);
    const done = drag;
    drag = null;
    view.box = null;
    view.draw();
    if (!done.moved) {
      actions.select(view.hit(x, y));
    } else if (done.kind === "zoom") {
      remember();
      view.setWindow(view.timeAt(Math.min(x, done.x)), view.timeAt(Math.max(x, done.x)));
    } else if (done.kind === "range") {
      const top = Math.min(y, done.y), bottom = Math.max(y, done.y);
      const touched = view.visibleLanes().filter((lane) => lane.track !== null && lane.kind !== "counter" && view.yOf(lane) < bottom && view.yOf(lane) + lane.height > top);
      view.range = { t0: view.timeAt(Math.min(x, done.x)), t1: view.timeAt(Math.max(x, done.x)), tracks: top < rulerHeight ? null : touched.flatMap((lane) => lane.track?.id ?? []) };
      actions.selectRange();
    } else if (Math.abs(x - done.x) > 3) history.push([done.t0, done.t1]);
    actions.changed();
  };
  window.addEventListener("mousemove", move);
  window.addEventListener("mouseup", up);
  canvas.addEventListener("mouseleave", () => { tip.hidden = true; });
  let settled = 0;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { x } = place(event);
    if (event.ctrlKey) view.zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY * 0.0025))), view.timeAt(x));
    else if (event.shiftKey) view.pan((event.deltaY + event.deltaX) / 1500);
    else { view.scrollTo(view.scroll + event.deltaY); if (event.deltaX !== 0) view.pan(event.deltaX / 1500); }
    window.clearTimeout(settled);
    settled = window.setTimeout(actions.changed, 200);
  }, { passive: false });
  view.gutterElement.addEventListener("wheel", (event) => { view.scrollTo(view.scroll + event.deltaY); }, { passive: true });

  return () => {
    document.removeEventListener("keydown", press);
    document.removeEventListener("keyup", release);
    window.removeEventListener("blur", blur);
    window.removeEventListener("mousemove", move);
    window.removeEventListener("mouseup", up);
  };
}
