// What is below the lanes: the chosen event, the sums of a range, the matches of a search.
import { ask, heldEvents, isHeld, isReport } from "../api";
import { button, h, replace } from "../dom";
import type { Child } from "../dom";
import type { Json, Row } from "../format";
import { exact, isRow, numberOf, rowsOf, show, textOf, time, title } from "../format";
import { flame } from "../flame";
import { errorNote, facts } from "../parts";
import { t } from "../strings";
import { table } from "../table";
import type { Range } from "./view";

export interface PanelActions { open: (slice: Row) => void; close: () => void }
type Tab = "slice" | "range" | "flame" | "search";

export class Panel {
  readonly element: HTMLElement;
  private readonly body = h("div", { class: "panel-body" });
  private readonly tabs: Record<Tab, HTMLButtonElement>;
  private readonly content: Record<Tab, Child[]> = {
    slice: [h("p", { class: "muted" }, t("Click an event to see it here."))],
    range: [h("p", { class: "muted" }, t("Drag over the lanes to add up a range."))],
    flame: [h("p", { class: "muted" }, t("Drag over the lanes to add up a range."))],
    search: [h("p", { class: "muted" }, t("Press / and type a name, key:value, or /expression/."))],
  };
  private current: Tab = "slice";
  private asked: AbortController | null = null;
  private waiting: (() => Promise<void>) | null = null;

  constructor(private readonly actions: PanelActions) {
    const tab = (id: Tab, label: string): HTMLButtonElement =>
      button(label, () => { this.show(id); }, { attrs: { role: "tab", "aria-selected": "false" } });
    this.tabs = { slice: tab("slice", t("Event")), range: tab("range", t("Range")), flame: tab("flame", t("Flame of the range")), search: tab("search", t("Matches")) };
    this.element = h("div", { class: "bottom", attrs: { role: "complementary", "aria-label": t("Details") } },
      h("div", { class: "tabs", attrs: { role: "tablist" } }, ...Object.values(this.tabs),
        button("✕", () => { this.actions.close(); }, { class: "quiet right", attrs: { "aria-label": t("Close the panel") } })), this.body);
    this.show("slice");
  }

  show(id: Tab): void {
    this.current = id;
    for (const [name, tab] of Object.entries(this.tabs)) tab.setAttribute("aria-selected", String(name === id));
    if (id === "flame" && this.waiting !== null) {
      this.content.flame = [h("p", { class: "muted" }, t("Loading…"))];
      void this.waiting();
      this.waiting = null;
    }
    replace(this.body, ...this.content[id]);
  }
  private fill(id: Tab, ...children: Child[]): void {
    this.content[id] = children;
    if (this.current === id) this.show(id);
  }

  private link(slice: Json | undefined): Child {
    if (!isRow(slice)) return false;
    if (!isHeld(numberOf(slice["id"], -1))) return h("span", {}, `${textOf(slice["name"]) || `#${textOf(slice["id"])}`} `);
    return button(textOf(slice["name"]) || `#${textOf(slice["id"])}`, () => { this.actions.open(slice); }, { class: "link" });
  }
  private links(name: string, value: Json | undefined): Child {
    const list = isRow(value) ? [value] : rowsOf(value);
    if (list.length === 0) return false;
    return h("div", { class: "relation" }, h("span", { class: "muted" }, `${name} (${list.length}): `), ...list.slice(0, 40).map((slice) => this.link(slice)));
  }

  /** Fills the tab of one event; `turn` also shows it. `known`: what the picture says of it, for a report that holds no more. */
  async slice(id: number, turn = true, known?: Row): Promise<Row | null> {
    if (turn) this.show("slice");
    if (known !== undefined && !isHeld(id)) {
      const { name, ...rest } = known;
      this.fill("slice", h("h3", { class: "slice-name" }, textOf(name)), facts(rest),
        h("p", { class: "muted" }, t("This report holds a picture of this rank, not its events; those that findings lead to have their details.")));
      return null;
    }
    this.fill("slice", h("p", { class: "muted" }, t("Loading…")));
    try {
      const slice = await ask(`slice/${id}`);
      const apart = new Set(["args", "parents", "children", "kernels", "flows_in", "flows_out", "name", "id", "track", "previous", "next", "launched_by"]);
      const main = Object.fromEntries(Object.entries(slice).filter(([name]) => !apart.has(name)));
      const args = isRow(slice["args"]) ? slice["args"] : {};
      this.fill("slice",
        h("h3", { class: "slice-name" }, textOf(slice["name"])),
        h("div", { class: "columns2" },
          h("div", {}, facts(main),
            this.links(t("Inside"), slice["parents"]), this.links(t("Contains"), slice["children"]), this.links(t("Launched by"), slice["launched_by"]),
            this.links(t("Kernels"), slice["kernels"]), this.links(t("Arrows from"), slice["flows_in"]), this.links(t("Arrows to"), slice["flows_out"]),
            this.links(t("Previous of this name"), slice["previous"]), this.links(t("Next of this name"), slice["next"])),
          h("div", {}, h("h4", {}, t("Arguments")), slice["args"] === null ? h("p", { class: "muted" }, t("not part of this report"))
            : Object.keys(args).length === 0 ? h("p", { class: "muted" }, t("none recorded")) : argumentList(args))));
      return slice;
    } catch (error) {
      this.fill("slice", errorNote(error));
      return null;
    }
  }

  async range(range: Range, all: readonly number[]): Promise<void> {
    this.asked?.abort();
    const asked = this.asked = new AbortController();
    this.show("range");
    this.fill("range", h("p", { class: "muted" }, t("Loading…")));
    const tracks = range.tracks ?? all;
    try {
      const sum = await ask("range", { t0: Math.round(range.t0), t1: Math.round(range.t1), tracks: tracks.slice(0, 500).join(",") }, asked.signal);
      const busy = rowsOf(sum["busy"]), rows = rowsOf(sum["rows"]);
      const busyTotal = busy.reduce((all_, row) => all_ + numberOf(row["busy_ns"]), 0);
      const selfTotal = rows.reduce((all_, row) => all_ + numberOf(row["self_ns"]), 0);
      const classes = isRow(sum["classes"]) ? sum["classes"] : {};
      const leftOut = numberOf(sum["left_out"]);
      this.fill("range",
        h("div", { class: "sums", attrs: { role: "status" } },
          h("strong", {}, `${time(range.t1 - range.t0)}  `), t("{n} lanes", { n: tracks.length - leftOut }), " · ",
          leftOut > 0 && `${t("{n} lanes are left out: the report holds a picture of them only", { n: leftOut })} · `,
          t("busy {busy} = self times {self}", { busy: time(busyTotal), self: time(selfTotal) }),
          ...Object.entries(classes).map(([name, value]) => h("span", { class: "chip", title: exact(name, value) }, `${title(name)} ${show(name, value)}`))),
        table(rows, { name: "range", label: t("Events of the range"), sort: "-self_ns", bar: "self_ns", height: 190,
          columns: ["name", "category", "class", "count", "total_ns", "self_ns", "avg_ns", "min_ns", "max_ns"] }));
    } catch (error) {
      if (!asked.signal.aborted) this.fill("range", errorNote(error));
    }
    if (isReport() && heldEvents()?.any !== true) { this.fill("flame", h("p", { class: "muted" }, t("not part of this report"))); return; }
    // Only once somebody looks at it.
    this.waiting = async () => {
      try {
        const stacks = await ask("flame", { t0: Math.round(range.t0), t1: Math.round(range.t1), tracks: tracks.slice(0, 500).join(",") }, asked.signal);
        this.fill("flame", textOf(stacks["empty"]) !== "" ? h("p", { class: "muted" }, textOf(stacks["empty"])) : flame(stacks, { table: false }));
      } catch (error) {
        if (!asked.signal.aborted) this.fill("flame", errorNote(error));
      }
    };
    if (this.current === "flame") this.show("flame");
  }

  /** `note`: what the search did not look at. */
  matches(rows: readonly Row[], total: number, note = ""): void {
    this.show("search");
    this.fill("search", h("div", { class: "sums", attrs: { role: "status" } }, t("{n} matches", { n: total }),
      rows.length < total && ` · ${t("the first {n} are listed", { n: rows.length })}`, note !== "" && ` · ${note}`),
    table([...rows], { name: "matches", label: t("Matches"), columns: ["name", "rank", "start_ns", "duration_ns"], hidden: ["id", "track"], height: 190,
      onOpen: (row) => { this.actions.open(row); } }));
  }
  searchError(error: unknown): void { this.show("search"); this.fill("search", errorNote(error)); }
}

function argumentList(args: Row): HTMLElement {
  const list = h("dl", { class: "facts args" });
  for (const [name, value] of Object.entries(args)) {
    list.append(h("dt", {}, name), h("dd", {}, typeof value === "string" ? value : JSON.stringify(value)));
  }
  return list;
}
