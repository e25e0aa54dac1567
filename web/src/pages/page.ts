import type { RunInfo } from "./scope";

export interface PageContext { info: RunInfo; signal: AbortSignal; baseline: boolean }
export type Page = (root: HTMLElement, context: PageContext) => void | Promise<void>;
