// What is shown stands in the address, so that a link shows the same: "#timeline?t0=0&t1=5e6".

type Listener = (page: string) => void;

class State {
  page = "";
  private params = new URLSearchParams();
  private listeners: Listener[] = [];
  private written = "";

  start(): void {
    window.addEventListener("hashchange", () => {
      if (location.hash === this.written) return;
      this.read();
      this.tell();
    });
    this.read();
    this.tell();
  }

  onPage(listener: Listener): void { this.listeners.push(listener); }

  get(name: string, otherwise = ""): string { return this.params.get(name) ?? otherwise; }

  number(name: string): number | null {
    const text = this.params.get(name);
    const value = text === null || text === "" ? NaN : Number(text);
    return Number.isFinite(value) ? value : null;
  }

  /** Changes parameters of this page without loading it anew; null removes one. */
  set(values: Record<string, string | number | null>): void {
    for (const [name, value] of Object.entries(values)) {
      if (value === null || value === "") this.params.delete(name);
      else this.params.set(name, String(value));
    }
    this.written = this.link(this.page, this.params);
    history.replaceState(null, "", this.written);
  }

  /** Goes to another page (or the same with other parameters). */
  go(page: string, values: Record<string, string | number> = {}): void {
    const params = new URLSearchParams();
    for (const [name, value] of Object.entries(values)) params.set(name, String(value));
    this.written = "";
    location.hash = this.link(page, params);
  }

  private link(page: string, params: URLSearchParams): string {
    const query = params.toString();
    return `#${page}${query === "" ? "" : `?${query}`}`;
  }

  private read(): void {
    const [page = "", query = ""] = location.hash.slice(1).split("?", 2);
    this.page = page;
    this.params = new URLSearchParams(query);
  }

  private tell(): void { for (const listener of this.listeners) listener(this.page); }
}

export const state = new State();

export function hashLink(page: string, values: Record<string, string | number>): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) params.set(name, String(value));
  const query = params.toString();
  return `#${page}${query === "" ? "" : `?${query}`}`;
}
