// What stands out, in words, each with its evidence and the way to the place.
import { isReport } from "../api";
import type { Child } from "../dom";
import { h, replace } from "../dom";
import type { Row } from "../format";
import { isRow, percent, rowsOf, show, textOf, title } from "../format";
import { hashOf, load } from "../parts";
import { hashLink } from "../state";
import { t } from "../strings";
import type { PageContext } from "./page";
import { scopeBar, scopeQuery } from "./scope";

export function findingList(document: Row): Child[] {
  const rows = rowsOf(document["findings"]), advice = rowsOf(document["advice"]);
  return [
    ...(rows.length === 0 ? [h("p", { class: "muted" }, t("Nothing stands out."))] : rows.map(one)),
    advice.length > 0 && h("h3", {}, t("Advice")), ...advice.map(one),
  ];
}

function one(finding: Row): HTMLElement {
  const link = hashOf(finding);
  const evidence = finding["evidence"];
  const where: Record<string, number> = {};
  if (!isReport()) for (const name of ["rank", "step"] as const) { const value = finding[name]; if (typeof value === "number") where[name] = value; }
  return h("div", { class: "finding" },
    h("strong", {}, title(textOf(finding["kind"]))), " ",
    ...(["rank", "step", "src", "dst"] as const).map((name) => typeof finding[name] === "number" && h("span", { class: "chip" }, `${title(name)} ${finding[name]}`)),
    typeof finding["severity"] === "number" && h("span", { class: "chip", title: t("Share of the step that it costs, about") }, percent(finding["severity"])),
    h("p", {}, textOf(finding["words"])),
    isRow(evidence) && h("p", { class: "muted" }, Object.entries(evidence).filter(([, value]) => value === null || typeof value !== "object")
      .map(([name, value]) => `${title(name)} ${show(name, value)}`).join(" · ")),
    Array.isArray(evidence) && h("ul", {}, ...evidence.slice(0, 8).map((item) => h("li", { class: "muted" }, isRow(item)
      ? Object.entries(item).map(([name, value]) => `${title(name)} ${show(name, value)}`).join(" · ") : textOf(item)))),
    link !== null && h("a", { class: "place", attrs: { href: hashLink("timeline", link) } }, t("Show in the timeline")),
    textOf(finding["page"]) !== "" && h("a", { class: "place", attrs: { href: hashLink(textOf(finding["page"]), where) } }, t("Show the page")));
}

export function findingsPage(root: HTMLElement, { info, signal }: PageContext): void {
  const body = h("div", {});
  const fill = (): void => { replace(body, scopeBar(info, fill, ["span", "step"]), load(t("Findings"), "findings", scopeQuery(), findingList, signal)); };
  root.append(body);
  fill();
}
