// Call stacks added up: a bar a call path, as wide as its time, callers above what they call.
import { heldEvents, isHeld, isReport } from "./api";
import { plot } from "./canvas";
import type { Child } from "./dom";
import { button, download, h, replace, select } from "./dom";
import type { Row } from "./format";
import { numberOf, percent, rowsOf, textOf, time } from "./format";
import { rowsTable } from "./generic";
import { state } from "./state";
import { t } from "./strings";
import { color, series } from "./theme";

interface Call { name: string; parent: Call | null; children: Call[]; depth: number; total: number; self: number; device: number; calls: number; first: number }
interface Bar { node: Call; x: number; width: number; y: number }

const rowHeight = 19, mostRows = 26;

function parse(document: Row): Call {
  const root: Call = { name: t("all"), parent: null, children: [], depth: -1, total: numberOf(document["total_ns"]), self: 0, device: 0, calls: 0, first: -1 };
  const nodes: Call[] = [];
  for (const row of rowsOf(document["nodes"])) {
    const parent = nodes[numberOf(row["parent"], -1)] ?? root;
    const node: Call = { name: textOf(row["name"]), parent, children: [], depth: numberOf(row["depth"]), total: numberOf(row["total_ns"]),
      self: numberOf(row["self_ns"]), device: numberOf(row["device_ns"]), calls: numberOf(row["calls"]), first: numberOf(row["first_id"], -1) };
    if (parent === root) root.device += node.device;
    parent.children.push(node);
    nodes.push(node);
  }
  return root;
}

function pathOf(node: Call): string[] {
  const names: string[] = [];
  for (let at: Call | null = node; at !== null && at.depth >= 0; at = at.parent) names.unshift(at.name);
  return names;
}

/** One colour for all operators of a kind, so that a picture keeps its colours when it is zoomed. */
function tone(name: string): number {
  let hash = 0;
  for (const letter of name.replace(/\d+/g, "")) hash = (hash * 31 + letter.charCodeAt(0)) >>> 0;
  return hash % 8;
}

/** Lines as flame-graph programs read them: "a;b;c 12" with self times in microseconds. */
function collapsed(root: Call): string {
  const lines: string[] = [];
  const visit = (node: Call): void => {
    const micros = Math.round(node.self / 1000);
    if (node.depth >= 0 && micros > 0) lines.push(`${pathOf(node).map((name) => name.replaceAll(/[;\n]/g, ",")).join(";")} ${micros}`);
    node.children.forEach(visit);
  };
  visit(root);
  return lines.join("\n") + "\n";
}

export interface FlameOptions { table?: boolean; height?: number }

export function flame(document: Row, options: FlameOptions = {}): HTMLElement {
  const holder = h("div", {});
  const draw = (): void => { replace(holder, ...parts(document, options, draw)); };
  draw();
  return holder;
}

function parts(document: Row, options: FlameOptions, again: () => void): Child[] {
  const root = parse(document);
  const byDevice = root.device > 0 && state.get("weight") === "device";
  const weight = (node: Call): number => (byDevice ? node.device : node.total);
  const order = (node: Call): void => {
    node.children.sort((a, b) => weight(b) - weight(a));
    node.children.forEach(order);
  };
  order(root);
  let top = root, chosen = root;
  let bars: Bar[] = [];
  const words = h("p", { class: "flame-words", attrs: { role: "status" } });
  const rows = Math.min(mostRows, 1 + Math.max(0, ...rowsOf(document["nodes"]).map((row) => numberOf(row["depth"]) + 1)));
  const chart = plot(t("Flame: callers above what they call, as wide as their time; arrows move, Enter zooms, Backspace goes back"), options.height ?? rows * rowHeight + 2,
    (context, width, height) => {
      bars = [];
      const place = (node: Call, x: number, length: number, y: number): void => {
        if (length < 0.5 || y >= height) return;
        bars.push({ node, x, width: length, y });
        const all = Math.max(weight(node), node.children.reduce((sum, child) => sum + weight(child), 0));
        let at = x;
        for (const child of node.children) {
          const part = all > 0 ? (weight(child) / all) * length : 0;
          place(child, at, part, y + rowHeight);
          at += part;
        }
      };
      // Above what is shown stand its callers.
      const callers: Call[] = [];
      for (let at = top.parent; at !== null; at = at.parent) callers.unshift(at);
      callers.forEach((node, i) => { bars.push({ node, x: 0, width, y: i * rowHeight }); });
      place(top, 0, width, callers.length * rowHeight);
      context.textBaseline = "middle";
      context.textAlign = "left";
      for (const bar of bars) {
        context.globalAlpha = bar.node.depth < (top.depth < 0 ? 0 : top.depth) ? 0.35 : 0.8;
        context.fillStyle = bar.node.depth < 0 ? color("band") : series(tone(bar.node.name));
        context.fillRect(bar.x, bar.y, Math.max(0.5, bar.width - 0.5), rowHeight - 1);
        context.globalAlpha = 1;
        if (bar.width > 24) {
          context.fillStyle = color("text");
          const room = Math.floor((bar.width - 6) / 6);
          const text = bar.node.name.length <= room ? bar.node.name : `${bar.node.name.slice(0, Math.max(1, room - 1))}…`;
          context.fillText(text, bar.x + 3, bar.y + rowHeight / 2);
        }
        if (bar.node === chosen) {
          context.strokeStyle = color("accent");
          context.lineWidth = 2;
          context.strokeRect(bar.x + 1, bar.y + 1, Math.max(1, bar.width - 2), rowHeight - 3);
          context.lineWidth = 1;
        }
      }
    });
  const canvas = chart.canvas;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  const whole = (): number => Math.max(1, weight(root));
  const describe = (node: Call): string => [node.depth < 0 ? node.name : pathOf(node).join(" › "), time(weight(node)), percent(weight(node) / whole()),
    `${t("self")} ${time(node.self)}`, node.calls > 0 ? t("{n} calls", { n: node.calls }) : "", node.device > 0 ? `${t("on the device")} ${time(node.device)}` : ""].filter((text) => text !== "").join(" · ");
  const choose = (node: Call): void => { chosen = node; words.textContent = describe(node); chart.redraw(); };
  const zoom = (node: Call): void => { top = node; choose(node); };
  const at = (event: MouseEvent): Call | null => {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    return bars.find((bar) => bar.x <= x && x < bar.x + bar.width && bar.y <= y && y < bar.y + rowHeight)?.node ?? null;
  };
  canvas.addEventListener("mousemove", (event) => { const node = at(event); canvas.title = node === null ? "" : describe(node); });
  canvas.addEventListener("click", (event) => { const node = at(event); if (node !== null) zoom(node); });
  canvas.addEventListener("keydown", (event) => {
    const siblings = chosen.parent?.children ?? [chosen], i = siblings.indexOf(chosen);
    const next = { ArrowUp: chosen.parent, ArrowDown: chosen.children[0], ArrowLeft: siblings[i - 1], ArrowRight: siblings[i + 1] }[event.key];
    if (event.key === "Enter") zoom(chosen);
    else if (event.key === "Backspace" || event.key === "Escape") zoom(top.parent ?? root);
    else if (event.key.startsWith("Arrow")) { if (next !== null && next !== undefined) choose(next); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  choose(root);
  const leftOut = numberOf(document["left_out"]);
  const paths: Row[] = [];
  const list = (node: Call): void => {
    if (node.depth >= 0) {
      paths.push({ path: pathOf(node).join(" › "), depth: node.depth, calls: node.calls, total_ns: node.total, self_ns: node.self,
        share: node.total / Math.max(1, root.total), device_ns: node.device, first_id: node.first });
    }
    node.children.forEach(list);
  };
  list(root);
  return [
    h("div", { class: "toolbar" },
      root.device > 0 && select(t("Width"), [["host", t("time on the host")], ["device", t("time on the device")]], byDevice ? "device" : "host", (value) => {
        state.set({ weight: value });
        again();
      }),
      button(t("All"), () => { zoom(root); }),
      (!isReport() || heldEvents()?.any === true) && button(t("To the timeline"), () => {
        if (chosen.first >= 0 && isHeld(chosen.first)) state.go("timeline", { slice: chosen.first });
      }, { title: t("The first of these calls") }),
      button(t("Collapsed stacks"), () => { download("stacks.txt", "text/plain", collapsed(root)); }, { title: t("Text that flame-graph programs read") }),
      leftOut > 0 && h("span", { class: "muted" }, t("{n} short paths are left out", { n: leftOut }))),
    chart.element, words,
    options.table !== false && rowsTable("flame", paths, { sort: "-self_ns", bar: "self_ns", hidden: ["first_id", ...(root.device > 0 ? [] : ["device_ns"])], height: 320 }),
  ];
}
