// Elements are made here and nowhere else; text goes in as text, never as markup.

export type Child = Node | string | number | null | undefined | false;

export interface Props {
  class?: string;
  title?: string | undefined;
  attrs?: Record<string, string | number | boolean | undefined>;
  on?: Partial<Record<keyof HTMLElementEventMap, (event: never) => void>>;
}

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (props.class !== undefined) element.className = props.class;
  if (props.title !== undefined) element.title = props.title;
  for (const [name, value] of Object.entries(props.attrs ?? {})) {
    if (value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const [name, listener] of Object.entries(props.on ?? {})) {
    element.addEventListener(name, listener as EventListener);
  }
  append(element, children);
  return element;
}

export function append(parent: Node, children: Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    parent.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** How an element is found again after its surroundings were made anew; "" when it has no name. */
function focusKey(element: Element): string {
  const name = element.id || (element.closest("label")?.firstElementChild?.textContent ?? "") || (element.getAttribute("aria-label") ?? "") || (element instanceof HTMLButtonElement ? element.textContent : "");
  return name === "" ? "" : `${element.tagName}/${name}`;
}

/** New children. Whoever was inside with the keyboard stays: on the element of the same name, else on the chosen tab, else on the page. */
export function replace(parent: Element, ...children: Child[]): void {
  const active = document.activeElement, inside = active !== null && active !== parent && parent.contains(active);
  const key = inside ? focusKey(active) : "";
  parent.replaceChildren();
  append(parent, children);
  if (!inside) return;
  const same = key === "" ? undefined : [...parent.querySelectorAll<HTMLElement>("button, select, input, canvas, [tabindex]")].find((element) => focusKey(element) === key);
  const next = same ?? parent.querySelector<HTMLElement>("[role=tab][aria-selected=true]") ?? parent.closest<HTMLElement>("main");
  next?.focus({ preventScroll: true });
}

export function button(label: string, onClick: () => void, props: Props = {}): HTMLButtonElement {
  const element = h("button", { ...props, attrs: { type: "button", ...props.attrs } }, label);
  element.addEventListener("click", onClick);
  return element;
}

/** A labelled choice; `values` are [value, label]. */
export function select(
  label: string,
  values: readonly (readonly [string, string])[],
  current: string,
  onChange: (value: string) => void,
): HTMLLabelElement {
  const box = h("select", {});
  for (const [value, text] of values) {
    box.appendChild(h("option", { attrs: { value, selected: value === current } }, text));
  }
  box.value = current;
  box.addEventListener("change", () => { onChange(box.value); });
  return h("label", { class: "field" }, h("span", {}, label), box);
}

/** Hands `text` to the user as a file. */
export function download(name: string, type: string, text: string): void {
  const link = h("a", { attrs: { href: URL.createObjectURL(new Blob([text], { type })), download: name } });
  link.click();
  setTimeout(() => { URL.revokeObjectURL(link.href); }, 10000);
}
