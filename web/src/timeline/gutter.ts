// Names of the lanes, as elements, so that they can be read out and reached with the keyboard.
import { button, h, replace } from "../dom";
import { t } from "../strings";
import type { Lane } from "./lanes";
import type { TimelineView } from "./view";
import { rulerHeight } from "./view";

export function drawGutter(view: TimelineView, changed: () => void): void {
  const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset["key"] : undefined;
  const act = (lane: Lane, what: "toggle" | "pin" | "up" | "down"): void => {
    if (what === "toggle") view.lanes.toggle(lane.key);
    else if (what === "pin") view.lanes.pin(lane.key);
    else view.lanes.move(lane.key, what === "up" ? -1 : 1);
    view.layoutChanged();
    changed();
  };
  const label = (lane: Lane): HTMLElement => {
    const foldable = lane.kind === "rank" || (lane.track !== null && (lane.track.depth > 1 || lane.kind === "counter"));
    const fold = foldable && button(lane.collapsed ? "▸" : "▾", () => { act(lane, "toggle"); }, {
      class: "fold", attrs: { "aria-expanded": String(!lane.collapsed), "aria-label": `${lane.collapsed ? t("Expand") : t("Collapse")} ${lane.label}`, "data-key": `${lane.key}/fold` },
    });
    const tools = lane.kind !== "rank" && h("span", { class: "tools" },
      button("↑", () => { act(lane, "up"); }, { title: t("Move up"), attrs: { "aria-label": `${t("Move up")}: ${lane.label}`, "data-key": `${lane.key}/up` } }),
      button("↓", () => { act(lane, "down"); }, { title: t("Move down"), attrs: { "aria-label": `${t("Move down")}: ${lane.label}`, "data-key": `${lane.key}/down` } }),
      button(lane.pinned ? "◆" : "◇", () => { act(lane, "pin"); }, { title: lane.pinned ? t("Unpin") : t("Pin to the top"),
        attrs: { "aria-pressed": String(lane.pinned), "aria-label": `${lane.pinned ? t("Unpin") : t("Pin to the top")}: ${lane.label}`, "data-key": `${lane.key}/pin` } }));
    const element = h("div", { class: `lane ${lane.kind}${lane.pinned ? " pinned" : ""}`, title: `${lane.label}\n${lane.sub}` }, fold,
      h("span", { class: "name" }, lane.label), lane.height > 36 && lane.sub !== "" && h("span", { class: "sub" }, lane.sub), tools);
    element.style.top = `${view.yOf(lane)}px`;
    element.style.height = `${lane.height}px`;
    return element;
  };
  const lanes = view.visibleLanes();
  const free = h("div", { class: "lanes" }, ...lanes.filter((lane) => !lane.pinned).map(label));
  const pins = h("div", { class: "lanes pins" }, ...lanes.filter((lane) => lane.pinned).map(label));
  free.style.clipPath = `inset(${rulerHeight + view.lanes.pinnedHeight}px 0 0 0)`;
  replace(view.gutterElement, free, pins);
  if (focused !== undefined) view.gutterElement.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}
