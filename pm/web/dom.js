// SPDX-License-Identifier: Apache-2.0
// The libraries under one roof, a store that components can watch, and small parts that every view uses.

import { endpoint } from "./format.js";
import htm from "./vendor/htm.module.js";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.module.js";
import { h, render } from "./vendor/preact.module.js";

// Text that is put into a template becomes a text node, never HTML.
export const html = htm.bind(h);
export { render, useEffect, useLayoutEffect, useMemo, useRef, useState };

// A value with watchers.
export class Store {
  constructor(value) {
    this.value = value;
    this.watchers = new Set();
  }

  set(value) {
    if (value === this.value) return;
    this.value = value;
    for (const watcher of [...this.watchers]) watcher(value);
  }
}

export function useStore(store) {
  const [, redraw] = useState(0);
  const shown = useRef();
  shown.current = store.value;
  useEffect(() => {
    const watcher = () => redraw((n) => n + 1);
    store.watchers.add(watcher);
    // Effects run after the frame: it may have changed since it was shown.
    if (store.value !== shown.current) watcher();
    return () => store.watchers.delete(watcher);
  }, [store]);
  return store.value;
}

// What a screen reader is told, politely.
export const announcement = new Store("");

export function Badge({ tone = "quiet", children }) {
  return html`<span class=${`badge ${tone}`}>${children}</span>`;
}

export function Empty({ children }) {
  return html`<p class="empty">${children}</p>`;
}

export function Notice({ tone, title, children }) {
  return html`<div class=${`notice ${tone}`} role=${tone === "bad" ? "alert" : "status"}>
    <strong>${title}</strong>
    ${children && html`<div class="notice-more">${children}</div>`}
  </div>`;
}

// What a view shows instead of its data: that they are on the way, or what is wrong.
export function Waiting({ error }) {
  // That the service does not answer is on top of the page already.
  if (!error || error.status === 0) return html`<p class="empty" role="status">Loading …</p>`;
  return html`<${Notice} tone="bad" title=${error.title}>${error.message}<//>`;
}

// The name of a subflow: its interface, and its two ends.
export function PairName({ one, interface: name }) {
  return html`<span class="name">${name}</span>
    <code class="under pair">${endpoint(one.local)} →<wbr /> ${endpoint(one.remote)}</code>`;
}

// A share, drawn and said. `parts`: [{share, colour, name}]
export function ShareBar({ parts, label }) {
  return html`<span class="share-bar" role="img" aria-label=${label}>
    ${parts.map(
      (part) =>
        part.share > 0 &&
        html`<span
          key=${part.name}
          title=${part.name}
          style=${{ width: `${(part.share * 100).toFixed(1)}%`, background: part.colour }}
        ></span>`,
    )}
  </span>`;
}

export function Evidence({ findings }) {
  return html`<ul class="findings">
    ${findings.map(
      (finding) => html`<li key=${finding.code}>
        <p>
          ${finding.text} ${finding.likely && html`<${Badge}>likely<//>`}
          <code class="code-name">${finding.code}</code>
        </p>
        ${
          finding.evidence.length > 0 &&
          html`<ul class="facts">
          ${finding.evidence.map((fact) => html`<li key=${fact}>${fact}</li>`)}
        </ul>`
        }
        ${finding.commands.map((command) => html`<pre key=${command} tabindex="0">${command}</pre>`)}
      </li>`,
    )}
  </ul>`;
}
