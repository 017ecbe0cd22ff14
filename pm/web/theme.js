// SPDX-License-Identifier: Apache-2.0
// Light and dark: as the system has it, or as the reader chose. Colours of interfaces and paths.

import { Store, html, useStore } from "./dom.js";
import { recall, remember } from "./storage.js";

const system = matchMedia("(prefers-color-scheme: dark)");
const chosen = new Store(recall("theme"));

export const theme = new Store("");

function apply() {
  const now = chosen.value ?? (system.matches ? "dark" : "light");
  document.documentElement.dataset.theme = now;
  theme.set(now);
}

system.addEventListener("change", apply);
chosen.watchers.add(apply);
apply();

export function ThemeButton() {
  const now = useStore(theme);
  const other = now === "dark" ? "light" : "dark";
  const change = () => {
    remember("theme", other);
    chosen.set(other);
  };
  return html`<button class="icon" onClick=${change} aria-label=${`Use ${other} colours`} title=${`Use ${other} colours`}>
    <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
      <circle cx="10" cy="10" r="7" fill="none" stroke="currentColor" stroke-width="2" />
      <path d="M10 3a7 7 0 0 1 0 14z" fill="currentColor" />
    </svg>
  </button>`;
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export const HUES = 8;
const places = new Map();

// The same interface has the same colour wherever it appears, in the order in which interfaces were met.
export function hue(name) {
  if (!places.has(name)) places.set(name, places.size);
  return `hue-${places.get(name) % HUES}`;
}
