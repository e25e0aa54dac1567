// What stands out, in words, each with its evidence and the way to the place.
import type { Child } from "../dom";
import { h } from "../dom";
import type { Row } from "../format";
import { isRow, rowsOf, show, textOf, title } from "../format";
import { hashOf, load } from "../parts";
import { hashLink } from "../state";
import { t } from "../strings";
import type { PageContext } from "./page";
import { scopeBar, scopeQuery } from "./scope";

const wordsOf = (finding: Row): string => textOf(finding["words"] ?? finding["text"] ?? finding["message"] ?? finding["title"]);

export function findingList(document: Row): Child[] {
  const rows = rowsOf(document["findings"] ?? document["rows"]);
  if (rows.length === 0) return [h("p", { class: "muted" }, t("Nothing stands out."))];
  return rows.map((finding) => {
    const link = hashOf(finding);
    const evidence = finding["evidence"];
    const advice = textOf(finding["advice"] ?? finding["hint"]);
    return h("div", { class: `finding ${textOf(finding["severity"])}` },
      h("strong", {}, title(textOf(finding["kind"]))), " ",
      typeof finding["rank"] === "number" && h("span", { class: "chip" }, `${t("rank")} ${finding["rank"]}`),
      textOf(finding["severity"]) !== "" && h("span", { class: "chip" }, textOf(finding["severity"])),
      h("p", {}, wordsOf(finding)),
      advice !== "" && h("p", { class: "muted" }, advice),
      isRow(evidence) && h("p", { class: "muted" }, Object.entries(evidence).filter(([, value]) => value === null || typeof value !== "object")
        .map(([name, value]) => `${title(name)} ${show(name, value)}`).join(" · ")),
      Array.isArray(evidence) && h("ul", {}, ...evidence.slice(0, 8).map((item) => h("li", { class: "muted" }, isRow(item)
        ? Object.entries(item).map(([name, value]) => `${title(name)} ${show(name, value)}`).join(" · ") : textOf(item)))),
      link !== null && h("a", { attrs: { href: hashLink("timeline", link) } }, t("Show in the timeline")));
  });
}

export function findingsPage(root: HTMLElement, { info, signal }: PageContext): void {
  const body = h("div", {});
  const fill = (): void => { body.replaceChildren(scopeBar(info, fill, ["span", "step"]), load(t("Findings"), "findings", scopeQuery(), findingList, signal)); };
  root.append(body);
  fill();
}
