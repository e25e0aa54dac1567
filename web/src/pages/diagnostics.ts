// What was repaired, dropped or could not be read.
import { generic } from "../generic";
import { load } from "../parts";
import { rowsOf, textOf } from "../format";
import { h } from "../dom";
import { rowsTable } from "../generic";
import { t } from "../strings";
import type { PageContext } from "./page";

export function diagnosticsPage(root: HTMLElement, { info, signal }: PageContext): void {
  const files = rowsOf(info.run["files"]);
  root.append(h("h2", {}, t("Files")), rowsTable("files", files, { columns: ["rank", "span", "file", "bytes", "events", "truncated", "error"], height: 260 }),
    ...files.flatMap((file) => (Array.isArray(file["warnings"]) ? file["warnings"] : []).map((warning) => h("p", { class: "muted" }, `${textOf(file["file"])}: ${textOf(warning)}`))),
    load(t("Diagnostics"), "diagnostics", {}, (document) => generic(document, [], "diagnostics"), signal));
}
