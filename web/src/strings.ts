// The page's words: English in the code, Chinese in the table of zh.ts.
import { zh } from "./zh";
import { store } from "./theme";

export type Language = "en" | "zh";

function first(): Language {
  let kept: string | null = null;
  try { kept = localStorage.getItem("triptych.language"); } catch { /* private window */ }
  if (kept === "en" || kept === "zh") return kept;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

let language: Language = first();
export function currentLanguage(): Language { return language; }
export function setLanguage(next: Language): void {
  language = next;
  store("triptych.language", next);
  document.documentElement.lang = next;
}

/** The text in the user's language, with {name} replaced. */
export function t(text: string, values: Record<string, string | number> = {}): string {
  const translated = language === "zh" ? (zh[text] ?? text) : text;
  return translated.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}
