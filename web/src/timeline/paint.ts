// Draws the lanes' events. One line of pixels is computed per row of slices and copied downwards,
// so that a frame costs as much as there are pixels, however many events there are.
import { color, isDark } from "../theme";
import type { SliceRow, Tile } from "./tiles";
import type { Names } from "./tiles";

export interface Label { x: number; y: number; width: number; text: string; event: number }

function rgb(text: string): [number, number, number] {
  const hex = /^#([0-9a-f]{6})$/i.exec(text)?.[1] ?? "888888";
  const value = parseInt(hex, 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
const pack = (r: number, g: number, b: number): number => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

/** FNV-1a: the same name has the same colour in every rank and every run. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; ++i) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}

const hues = [210, 28, 150, 340, 265, 190, 50, 115, 300, 12, 230, 85, 170, 320, 245, 65];

function hsl(hue: number, saturation: number, light: number): [number, number, number] {
  const a = saturation * Math.min(light, 1 - light);
  const part = (n: number): number => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (light - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [part(0), part(8), part(4)];
}

export class Painter {
  width = 0;
  height = 0;
  private image = new ImageData(1, 1);
  private pixels = new Uint32Array(1);
  private background = 0;
  private border = 0;
  private readonly palette: number[] = [];
  private readonly tones = new Map<Names, Uint32Array>();
  private faded: { query: string; byNames: Map<Names, Int8Array> } = { query: "", byNames: new Map() };
  labels: Label[] = [];
  private readonly lastLabel = new Map<number, Label>();   // by y: an event may go on in the next tile

  theme(): void {
    this.background = pack(...rgb(color("page")));
    this.border = pack(...rgb(color("page")));
    this.palette.length = 0;
    for (const light of isDark() ? [0.38, 0.46] : [0.72, 0.62]) {
      for (const hue of hues) this.palette.push(pack(...hsl(hue, isDark() ? 0.45 : 0.62, light)));
    }
    this.tones.clear();
  }

  /** Names without this text are drawn pale; "" ends that. */
  fade(query: string): void {
    if (query.toLowerCase() !== this.faded.query) this.faded = { query: query.toLowerCase(), byNames: new Map() };
  }

  begin(width: number, height: number): void {
    if (width !== this.width || height !== this.height) {
      this.image = new ImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
      this.width = width;
      this.height = height;
    }
    this.pixels.fill(this.background);
    this.labels = [];
    this.lastLabel.clear();
  }

  end(context: CanvasRenderingContext2D): void { context.putImageData(this.image, 0, 0); }

  band(y: number, height: number, tone: number): void {
    const from = Math.max(0, y), to = Math.min(this.height, y + height);
    if (to > from) this.pixels.fill(tone, from * this.width, to * this.width);
  }

  tone(name: string): number { return pack(...rgb(color(name))); }

  private toneOf(names: Names, id: number): number {
    let table = this.tones.get(names);
    if (table === undefined || table.length <= id) {
      const larger = new Uint32Array(Math.max(1024, id * 2 + 2));
      if (table !== undefined) larger.set(table);
      this.tones.set(names, table = larger);
    }
    let tone = table[id] ?? 0;
    if (tone === 0) {
      const text = names.get(id);
      tone = this.palette[(text === undefined ? id : hash(text)) % this.palette.length] ?? this.background;
      if (text !== undefined) table[id] = tone;
    }
    return this.isFaded(names, id) ? this.blend(tone, 0.18) : tone;
  }

  private isFaded(names: Names, id: number): boolean {
    const { query, byNames } = this.faded;
    if (query === "") return false;
    let table = byNames.get(names);
    if (table === undefined || table.length <= id) byNames.set(names, table = new Int8Array(Math.max(1024, id * 2 + 2)));
    if (table[id] === 0) {
      const text = names.get(id);
      if (text === undefined) return true;
      table[id] = text.toLowerCase().includes(query) ? 1 : -1;
    }
    return table[id] === -1;
  }

  private blend(tone: number, share: number): number {
    const back = this.background;
    const mix = (shift: number): number => {
      const b = (back >>> shift) & 255, f = (tone >>> shift) & 255;
      return Math.round(b + (f - b) * share) & 255;
    };
    return ((255 << 24) | (mix(16) << 16) | (mix(8) << 8) | mix(0)) >>> 0;
  }

  /**
   * One row of slices of one tile. x = (t - t0) * scale in device pixels; only [clipLeft, clipRight)
   * is touched, so that a coarse tile fills in for a part only.
   */
  row(tile: Tile, row: SliceRow, shift: number, t0: number, scale: number, clipLeft: number, clipRight: number,
    y: number, height: number, names: Names, labelFrom: number): void {
    if (y + height <= 0 || y >= this.height) return;
    const { start, dur, name, event, count, covered } = row;
    const line = Math.max(0, y) * this.width;
    const offset = tile.begin + shift - t0;
    const pixels = this.pixels;
    // The first slice that reaches into the view; rows hardly overlap, so one step back is enough.
    const from = clipLeft / scale - offset;
    let low = 0, high = start.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((start[middle] ?? 0) < from) low = middle + 1; else high = middle;
    }
    for (let i = Math.max(0, low - 2); i < start.length; ++i) {
      const begin = (start[i] ?? 0) + offset;
      let left = Math.floor(begin * scale);
      if (left >= clipRight) break;
      let right = Math.ceil((begin + (dur[i] ?? 0)) * scale);
      if (right <= left) right = left + 1;
      const goesOn = right > clipRight;
      if (left < clipLeft) left = clipLeft;
      if (goesOn) right = clipRight;
      if (right <= left) continue;
      const id = name[i] ?? 0;
      let tone = this.toneOf(names, id);
      if ((count[i] ?? 1) > 1) tone = this.blend(tone, 0.3 + 0.7 * Math.min(1, covered[i] ?? 1));
      pixels.fill(tone, line + left, line + right);
      if (right - left >= 3 && !goesOn) pixels[line + right - 1] = this.border;
      const which = event[i] ?? 0, before = this.lastLabel.get(y);
      if (before !== undefined && before.event === which) {
        before.width = right - before.x;
      } else if (right - left >= labelFrom || goesOn) {
        const text = names.get(id);
        if (text === undefined) continue;
        const label = { x: left, y, width: right - left, text: (count[i] ?? 1) > 1 ? `${text} ×${count[i] ?? 1}` : text, event: which };
        this.labels.push(label);
        this.lastLabel.set(y, label);
      }
    }
  }

  /** Copies the line of a row downwards over its height. */
  spread(y: number, height: number): void {
    const from = Math.max(0, y), to = Math.min(this.height, y + height);
    for (let at = from + 1; at < to; ++at) this.pixels.copyWithin(at * this.width, from * this.width, (from + 1) * this.width);
  }
}
