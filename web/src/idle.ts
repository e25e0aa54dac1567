// Whether the page still has something to do. Tests wait for this rather than for a time, so that a
// loaded machine makes them slower and nothing else.
let pending = 0;
const conditions = new Set<() => boolean>();

/** Marks work as begun; what it returns marks it as done, once. */
export function begin(): () => void {
  ++pending;
  let open = true;
  return () => {
    if (open) --pending;
    open = false;
  };
}

/** The promise, for as long as which the page is not idle. */
export function during<T>(work: Promise<T>): Promise<T> {
  const done = begin();
  work.then(done, done);
  return work;
}

/** The page is idle only while `condition` holds, until `signal` says that nobody asks any more. */
export function idleWhile(condition: () => boolean, signal: AbortSignal): void {
  conditions.add(condition);
  signal.addEventListener("abort", () => { conditions.delete(condition); });
}

/** Comes true when nothing is asked for or waited for and two frames in a row had nothing to add. */
export async function whenIdle(): Promise<void> {
  for (let quiet = 0; quiet < 3;) {
    await new Promise((resolve) => { requestAnimationFrame(resolve); });
    quiet = pending === 0 && [...conditions].every((condition) => condition()) ? quiet + 1 : 0;
  }
}
