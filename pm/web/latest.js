// SPDX-License-Identifier: Apache-2.0
// What happened since the page was opened, as it happens.

import { Empty, html, useMemo, useState } from "./dom.js";
import { clock, words } from "./format.js";
import { useEvents } from "./live.js";
import { href } from "./route.js";

const EVENTS = 8;

export function Latest() {
  const [events, setEvents] = useState([]);
  const hear = useMemo(() => (event) => event.id && setEvents((old) => [event, ...old].slice(0, EVENTS)), []);
  useEvents(hear);
  return html`<section aria-labelledby="latest">
    <h2 id="latest">Since this page is open</h2>
    ${
      events.length === 0
        ? html`<${Empty}>Nothing has happened yet.<//>`
        : html`<ol class="log">
          ${events.map(
            (event) => html`<li key=${event.id}>
              <time datetime=${event.time}>${clock(event.time)}</time>
              <span>${event.type} ${words(event.action)}</span>
              ${event.token && html`<a href=${href("session", event.token)}><code>${event.token}</code></a>`}
              <span class="detail">${detailText(event.detail)}</span>
            </li>`,
          )}
        </ol>`
    }
  </section>`;
}

function detailText(detail) {
  return Object.entries(detail)
    .filter(([, value]) => value !== null && value !== "")
    .map(([key, value]) => `${words(key)} ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(", ");
}
