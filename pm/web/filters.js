// SPDX-License-Identifier: Apache-2.0
// What narrows the list of sessions. It is in the address, which can be sent to others.

import { html, useEffect, useRef, useState } from "./dom.js";
import { replaceQuery } from "./route.js";

const TYPING_MS = 250;

export function Filters({ wanted, focus, policies }) {
  const field = useRef();
  const timer = useRef();
  const [text, setText] = useState(wanted.search ?? "");
  useEffect(() => setText(wanted.search ?? ""), [wanted.search]);
  useEffect(() => focus && field.current.focus(), []);
  const filters = useRef();
  filters.current = wanted; // the timer finds those of then
  useEffect(() => () => clearTimeout(timer.current), []);
  const change = (name, value) => replaceQuery("sessions", { ...filters.current, [name]: value });
  const type = (event) => {
    const { value } = event.target;
    setText(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => change("search", value.trim()), TYPING_MS);
  };
  const names = new Set([...policies.keys(), ...(wanted.policy ? [wanted.policy] : [])]);
  return html`<form class="filters" role="search" aria-label="Sessions" onSubmit=${(event) => event.preventDefault()}>
    <label class="grow">
      <span>Search</span>
      <input
        type="search"
        ref=${field}
        value=${text}
        onInput=${type}
        maxlength="200"
        placeholder="Token, address, policy or cgroup"
        aria-keyshortcuts="/"
        spellcheck=${false}
        autocomplete="off"
      />
    </label>
    <label>
      <span>Policy</span>
      <select value=${wanted.policy ?? ""} onChange=${(event) => change("policy", event.target.value)}>
        <option value="">all</option>
        ${[...names].map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
      </select>
    </label>
    <label>
      <span>State</span>
      <select value=${wanted.state ?? ""} onChange=${(event) => change("state", event.target.value)}>
        <option value="">all</option>
        ${["created", "established"].map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
      </select>
    </label>
    ${
      wanted.cgroup &&
      html`<button type="button" class="chip" onClick=${() => change("cgroup", "")} aria-label="Do not filter by cgroup any more">
      ${wanted.cgroup} ×
    </button>`
    }
  </form>`;
}
