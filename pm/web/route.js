// SPDX-License-Identifier: Apache-2.0
// The view and its filters are in the fragment: `#/sessions?policy=sync&search=10.0`.

import { Store, html, useStore } from "./dom.js";

function parse() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view = "", ...rest] = path.split("/");
  return { view: view || "overview", id: rest.map(safely).join("/"), query: new URLSearchParams(query) };
}

function safely(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const route = new Store(parse());
export const readAddress = () => route.set(parse());
window.addEventListener("hashchange", readAddress);

export function href(view, id = "", query = {}) {
  const given = Object.entries(query).filter(([, value]) => value);
  const text = new URLSearchParams(given).toString();
  return `#/${view}${id ? `/${encodeURIComponent(id)}` : ""}${text ? `?${text}` : ""}`;
}

// A change of filters is no new step of the history, and no new view for a screen reader.
export function replaceQuery(view, query) {
  history.replaceState(null, "", href(view, "", query));
  readAddress();
}

export function Tabs({ tabs }) {
  const { view } = useStore(route);
  return html`<nav aria-label="Views">
    <ul class="tabs">
      ${tabs.map(
        ([name, title, rest]) => html`<li key=${name}>
          <a
            href=${href(name)}
            aria-current=${view === name || (name === "sessions" && view === "session") ? "page" : undefined}
            >${title}${rest && html`<span class="rest">${rest}</span>`}</a
          >
        </li>`,
      )}
    </ul>
  </nav>`;
}
