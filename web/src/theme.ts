// Light and dark follow the system until the user says otherwise; the canvases take their colours
// from the style sheet's variables.

export type Mode = "system" | "light" | "dark";
const listeners: (() => void)[] = [];
const system = window.matchMedia("(prefers-color-scheme: dark)");

function stored(name: string): string | null {
  try { return localStorage.getItem(name); } catch { return null; }
}
export function store(name: string, value: string): void {
  try { localStorage.setItem(name, value); } catch { /* private windows: it lasts as long as the page */ }
}

let mode: Mode = (["light", "dark"].find((m) => m === stored("triptych.theme")) as Mode | undefined) ?? "system";

export function isDark(): boolean { return mode === "dark" || (mode === "system" && system.matches); }
export function themeMode(): Mode { return mode; }
export function onTheme(listener: () => void): void { listeners.push(listener); }

const known = new Map<string, string>();

function apply(): void {
  known.clear();
  document.documentElement.dataset["theme"] = isDark() ? "dark" : "light";
  for (const listener of listeners) listener();
}

export function setTheme(next: Mode): void {
  mode = next;
  store("triptych.theme", next);
  apply();
}

export function startTheme(): void {
  system.addEventListener("change", apply);
  apply();
}

/** A variable of the style sheet; kept until the theme changes, since frames ask often. */
export function color(name: string): string {
  let value = known.get(name);
  if (value === undefined) {
    value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    if (value !== "") known.set(name, value);
  }
  return value;
}

/** Colours of series; each also has a pattern or a label beside it. Chosen to differ in lightness. */
const seriesLight = ["#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#65a30d", "#475569", "#b45309"];
const seriesDark = ["#60a5fa", "#fbbf24", "#34d399", "#f87171", "#a78bfa", "#22d3ee", "#f472b6", "#a3e635", "#94a3b8", "#fdba74"];
export function series(index: number): string {
  const table = isDark() ? seriesDark : seriesLight;
  return table[index % table.length] ?? "#888";
}
