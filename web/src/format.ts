// How numbers are shown: the unit follows from the name of the field that holds them.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Row = Record<string, Json>;

const timeUnits: readonly (readonly [number, string])[] = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]];

/** "12.3 ms"; three to four significant digits. */
export function time(ns: number): string {
  if (!Number.isFinite(ns)) return "–";
  if (ns === 0) return "0";
  const size = Math.abs(ns);
  const [scale, unit] = timeUnits.find(([least]) => size >= least) ?? [1, "ns"];
  return `${short(ns / scale)} ${unit}`;
}

/** "1 234 567 ns", for tooltips. */
export function exactTime(ns: number): string {
  return `${Math.round(ns).toLocaleString("en").replaceAll(",", " ")} ns`;
}

export function bytes(value: number): string {
  const size = Math.abs(value);
  for (const [least, unit] of [[1 << 30, "GiB"], [1 << 20, "MiB"], [1 << 10, "KiB"]] as const) {
    if (size >= least) return `${short(value / least)} ${unit}`;
  }
  return `${short(value)} B`;
}

export function short(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 2 ** 53) return String(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
  return String(Number(value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4)));
}

function flops(value: number): string {
  const [scale, unit] = ([[1e15, "PFLOP"], [1e12, "TFLOP"], [1e9, "GFLOP"], [1e6, "MFLOP"]] as const).find(([least]) => value >= least) ?? [1, "FLOP"];
  return `${short(value / scale)} ${unit}`;
}

export function percent(share: number): string {
  return Number.isFinite(share) ? `${(share * 100).toFixed(Math.abs(share) < 0.1 ? 2 : 1)} %` : "–";
}

/** Kinds of memory, each a column of a table. */
const memoryKinds = /^(activation|checkpoint|communication|gradient|input|optimizer_state|parameter|temporary|unknown|workspace)$/;

export type Kind = "time" | "bytes" | "share" | "percent" | "bandwidth" | "flops" | "number" | "text";

export function kindOf(field: string): Kind {
  if (/(^|_)ns$/.test(field) || field === "t") return "time";
  if (/bandwidth|_bps$|busbw|algbw|bytes_per_s/.test(field)) return "bandwidth";
  if (/percent$/.test(field)) return "percent";
  if (memoryKinds.test(field)) return "bytes";
  if (/(^|_)bytes$|^(allocated|reserved|size|listed|total|requested|largest_free)$/.test(field)) return "bytes";
  if (/(^|_)(share|ratio|fraction|fragmentation|excess|mfu|hfu)$|^of_/.test(field)) return "share";
  if (/flops?(_per_s|_per_second|_per_step)?$/.test(field)) return "flops";
  return "number";
}

export function show(field: string, value: Json | undefined): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "✓" : "–";
  if (typeof value === "string") return value;
  if (typeof value !== "number") return JSON.stringify(value);
  if (value < 0 && /^(src|dst|rank|stage)$/.test(field)) return "–";  // of a collective: no one
  switch (kindOf(field)) {
    case "time": return time(value);
    case "bytes": return bytes(value);
    case "bandwidth": return `${short(value / 1e9)} GB/s`;
    case "share": return percent(value);
    case "percent": return `${short(value)} %`;
    case "flops": return value === 0 ? "–" : flops(value) + (/_per_s(econd)?$/.test(field) ? "/s" : "");
    default: return short(value);
  }
}

/** The value as it is, with its unit; for tooltips. */
export function exact(field: string, value: Json | undefined): string {
  if (typeof value !== "number") return show(field, value);
  return kindOf(field) === "time" ? exactTime(value) : String(value);
}

/** "exposed_comm_ns" -> "exposed comm". */
export function title(field: string): string {
  if (field === "t") return "time";
  return field.replace(/_(ns|bytes)$/, "").replaceAll("_", " ");
}

function csvCell(value: Json | undefined): string {
  if (value === null || value === undefined) return "";
  let text = typeof value === "object" ? JSON.stringify(value) : String(value);
  // A spreadsheet would run a name that starts like a formula.
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function csv(columns: readonly string[], rows: readonly Row[]): string {
  const lines = [columns.map(csvCell).join(",")];
  for (const row of rows) lines.push(columns.map((column) => csvCell(row[column])).join(","));
  return lines.join("\r\n") + "\r\n";
}

export function tsv(columns: readonly string[], rows: readonly Row[]): string {
  const cell = (value: Json | undefined): string => csvCell(value).replace(/[\t\r\n]/g, " ");
  return [columns.join("\t"), ...rows.map((row) => columns.map((c) => cell(row[c])).join("\t"))].join("\n");
}

export function isRow(value: Json | undefined): value is Row {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The objects of a list; [] when it is none. */
export function rowsOf(value: Json | undefined): Row[] {
  return Array.isArray(value) ? value.filter(isRow) : [];
}

export function numberOf(value: Json | undefined, otherwise = 0): number {
  return typeof value === "number" ? value : otherwise;
}

export function textOf(value: Json | undefined): string {
  return typeof value === "string" ? value : value === null || value === undefined ? "" : show("", value);
}
