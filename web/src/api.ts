// Questions to the server, or, in a report that was saved as one file, to the answers inside it.
import type { Json, Row } from "./format";
import { isRow } from "./format";
import type { Held } from "./held";
import { heldOf } from "./held";
import { during } from "./idle";

export type Query = Record<string, string | number | null | undefined>;

export class ApiError extends Error {
  constructor(readonly status: number, message: string, readonly hint: string) { super(message); }
}

/** The address of a question; names without value are left out, the order is that of the names. */
export function address(path: string, query: Query = {}): string {
  const params = new URLSearchParams();
  for (const name of Object.keys(query).sort()) {
    const value = query[name];
    if (value !== null && value !== undefined && value !== "") params.set(name, String(value));
  }
  const text = params.toString();
  return `api/v1/${path}${text === "" ? "" : `?${text}`}`;
}

/** Answers of a saved report: text, or base64 of binary ones. */
interface Saved { documents: Record<string, Json>; binary: Record<string, string> }
let saved: Saved | null = null;
let events: Held | null = null;  // those that a saved report carries one by one

/** Under what a saved report keeps an answer. */
function savedKey(path: string, query: Query): string {
  const parts = Object.keys(query).sort().flatMap((name) => {
    const value = query[name];
    return value === null || value === undefined || value === "" ? [] : [`${name}=${String(value)}`];
  });
  return parts.length === 0 ? path : `${path}?${parts.join("&")}`;
}

export const isReport = (): boolean => saved !== null;

/** What a saved report holds one by one; null from a server, which has everything. */
export const heldEvents = (): Held | null => events;

/** Whether this event has details: a server has all, a saved report those that it carries. */
export const isHeld = (slice: number): boolean => saved === null || `slice/${slice}` in saved.documents || events?.has(slice) === true;

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; ++i) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** Unpacks the answers that a saved report carries, if this page is one. */
export async function openReport(): Promise<void> {
  const holder = document.getElementById("report-data");
  if (holder === null) return;
  const packed = fromBase64((holder.textContent ?? "").trim());
  let text: string;
  if (holder.dataset["packed"] === "gzip") {
    if (typeof DecompressionStream === "undefined") {
      throw new Error("this browser cannot unpack the report; it needs DecompressionStream (2023 or newer)");
    }
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    text = await new Response(stream).text();
  } else {
    text = new TextDecoder().decode(packed);
  }
  const report = saved = JSON.parse(text) as Saved;
  events = heldOf(report.documents["report"], (file) => fromBase64(report.binary[`events?file=${file}`] ?? ""),
    (file) => { const strings = report.documents[`strings?file=${file}&from=0`]; return isRow(strings) ? strings : {}; });
}

async function answer(path: string, query: Query, signal?: AbortSignal): Promise<Response> {
  const response = await fetch(address(path, query), { cache: "no-cache", ...(signal === undefined ? {} : { signal }) });
  if (response.ok) return response;
  const body = await response.json().catch(() => null) as Json;
  const error = isRow(body) && isRow(body["error"]) ? body["error"] : {};
  throw new ApiError(response.status, String(error["message"] ?? response.statusText), String(error["hint"] ?? ""));
}

function notInReport(): never {
  throw new ApiError(404, "not part of this report", "open the folder with triptych insight to see it");
}

export function ask(path: string, query: Query = {}, signal?: AbortSignal): Promise<Row> {
  return during(askNow(path, query, signal));
}

async function askNow(path: string, query: Query, signal?: AbortSignal): Promise<Row> {
  if (saved !== null) {
    const document = saved.documents[savedKey(path, query)];
    return isRow(document) ? document : events?.answer(path, query) ?? notInReport();
  }
  return await (await answer(path, query, signal)).json() as Row;
}

export function askBinary(path: string, query: Query, signal?: AbortSignal): Promise<ArrayBuffer> {
  return during(askBinaryNow(path, query, signal));
}

async function askBinaryNow(path: string, query: Query, signal?: AbortSignal): Promise<ArrayBuffer> {
  if (saved !== null) {
    const text = saved.binary[savedKey(path, query)];
    return text === undefined ? notInReport() : fromBase64(text).buffer;
  }
  return await (await answer(path, query, signal)).arrayBuffer();
}

/** Events pushed by the server; null in a saved report. */
export function listen(handlers: Record<string, (data: Row) => void>): EventSource | null {
  if (saved !== null) return null;
  const source = new EventSource("api/v1/events");
  for (const [name, handler] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => {
      const data = JSON.parse((event as MessageEvent<string>).data) as Json;
      if (isRow(data)) handler(data);
    });
  }
  return source;
}
