// SPDX-License-Identifier: Apache-2.0
// What people ask first: which interface carries what, and which policy has which sessions.

import { Chart } from "./chart.js";
import { Badge, Empty, ShareBar, Waiting, html, useEffect, useMemo, useState } from "./dom.js";
import { bytes, clock, count, milliseconds, percent, plural, rate, words } from "./format.js";
import { useEvents, usePoll } from "./live.js";
import { href } from "./route.js";
import { useMinutes } from "./series.js";
import { hue } from "./theme.js";

const EVENTS = 8;
const STATES = { up: "good", down: "bad", "no carrier": "bad", gone: "quiet" };

export function OverviewView({ status }) {
  const polled = usePoll("v1/interfaces", 1, (event) => event.type === "address");
  const { data, error } = polled;
  return html`<h1>Overview</h1>
    ${data ? html`<${Interfaces} data=${data} />` : html`<${Waiting} error=${error} />`}
    <${Policies} interfaces=${data?.interfaces ?? []} />
    <${Latest} sessions=${status.data?.sessions} />`;
}

function Interfaces({ data }) {
  const minutes = useMinutes();
  const [, setMerges] = useState(0);
  const redraw = useMemo(() => () => setMerges((n) => n + 1), []);
  const shown = data.interfaces;
  const names = shown.filter((one) => one.used || one.bytes_sent + one.bytes_received > 0).map((one) => one.name);
  names.forEach(hue); // their colours, in this order
  useMemo(() => {
    const now = Date.now() / 1000;
    for (const one of shown) {
      minutes.add(`${one.name}/received`, now, one.received_per_second);
      minutes.add(`${one.name}/sent`, now, one.sent_per_second);
    }
  }, [data]);
  const table = minutes.table(names.flatMap((name) => [`${name}/received`, `${name}/sent`]));
  const line = (name, way) => ({
    name,
    hue: hue(name),
    values: table.values.get(`${name}/${way}`),
    below: way === "sent",
  });
  const series = [...names.map((name) => line(name, "received")), ...names.map((name) => line(name, "sent"))];
  return html`<section aria-labelledby="interfaces">
    <h2 id="interfaces">Interfaces</h2>
    <div class="card">
      <p class="chart-title">Throughput of MPTCP subflows: received above the line, sent below</p>
      ${names.map((name) => html`<${Earlier} key=${name} name=${name} minutes=${minutes} merged=${redraw} />`)}
      <${Chart} label="Throughput by interface" times=${table.times} series=${series} show=${rate} stacked=${true} height=${230} />
      <${Sampled} data=${data} />
    </div>
    ${shown.length ? html`<${InterfaceTable} shown=${shown} />` : html`<${Empty}>No interface has an address.<//>`}
  </section>`;
}

// What the service kept from before this page was opened.
function Earlier({ name, minutes, merged }) {
  const { data } = usePoll(`v1/interfaces/${encodeURIComponent(name)}/series`, 45);
  useEffect(() => {
    if (!data) return;
    minutes.merge(data, (one) => {
      const way = { received_per_second: "received", sent_per_second: "sent" }[one.name];
      return way ? `${name}/${way}` : null;
    });
    merged();
  }, [data]);
  return null;
}

export function Sampled({ data }) {
  if (data.sampled_sessions >= data.sessions) return null;
  return html`<p class="fine">
    From ${count(data.sampled_sessions)} sessions, chosen by chance out of ${count(data.sessions)}.
  </p>`;
}

function InterfaceTable({ shown }) {
  return html`<div class="table-frame" tabindex="0" role="group" aria-label="Interfaces">
    <table class="wide">
      <thead>
        <tr>
          <th scope="col">Interface</th>
          <th scope="col">State</th>
          <th scope="col" class="n">Received</th>
          <th scope="col" class="n">Sent</th>
          <th scope="col">Share</th>
          <th scope="col" class="n">RTT</th>
          <th scope="col" class="n" title="Retransmitted segments: in all, and now">Retransmits</th>
          <th scope="col" class="n">Sessions</th>
          <th scope="col" class="n">Subflows</th>
          <th scope="col" class="n" title="Since the service started, both ways">Volume</th>
        </tr>
      </thead>
      <tbody>
        ${shown.map((one) => html`<${InterfaceRow} key=${one.name} one=${one} />`)}
      </tbody>
    </table>
  </div>`;
}

function InterfaceRow({ one }) {
  return html`<tr class=${one.used ? "" : "unused"}>
    <th scope="row">
      <span class="swatch" style=${{ "--swatch": one.used ? `var(--${hue(one.name)})` : "var(--line)" }}></span>
      <span class="name">${one.name}</span>
      <span class="under">${one.addresses.join(", ")}</span>
      ${!one.used && one.reason && html`<span class="under why">${one.reason}</span>`}
    </th>
    <td data-label="State">
      <${Badge} tone=${STATES[one.state] ?? "quiet"}>${one.state}<//>
      ${!one.used && html` <${Badge}>not used<//>`} ${one.backup && html` <${Badge}>backup<//>`}
    </td>
    <td data-label="Received" class="n">${rate(one.received_per_second)}</td>
    <td data-label="Sent" class="n">${rate(one.sent_per_second)}</td>
    <td data-label="Share" class="share">
      <${ShareBar}
        parts=${[{ name: one.name, share: one.share ?? 0, colour: `var(--${hue(one.name)})` }]}
        label=${`${percent(one.share)} of the traffic`}
      /><span>${percent(one.share)}</span>
    </td>
    <td data-label="RTT" class="n">${milliseconds(one.rtt)}</td>
    <td data-label="Retransmits" class="n">
      ${count(one.retransmits)}
      ${one.retransmits_per_second > 0 && html`<span class="warn-text"> +${one.retransmits_per_second.toFixed(1)}/s</span>`}
    </td>
    <td data-label="Sessions" class="n">${count(one.sessions)}</td>
    <td data-label="Subflows" class="n">${count(one.subflows)}</td>
    <td data-label="Volume" class="n">${bytes(one.bytes_sent + one.bytes_received)}</td>
  </tr>`;
}

function Policies() {
  const { data, error } = usePoll("v1/policies", 4, (event) => event.type === "policy" || event.type === "config");
  return html`<section aria-labelledby="policies">
    <h2 id="policies">Policies</h2>
    ${!data
      ? html`<${Waiting} error=${error} />`
      : html`<div class="table-frame" tabindex="0" role="group" aria-label="Policies">
          <table class="wide">
            <thead>
              <tr>
                <th scope="col">Policy</th>
                <th scope="col">Path manager</th>
                <th scope="col" class="n">Sessions</th>
                <th scope="col" class="n">Received</th>
                <th scope="col" class="n">Sent</th>
                <th scope="col">By interface</th>
                <th scope="col">Cgroups</th>
              </tr>
            </thead>
            <tbody>
              ${data.policies.map((policy) => html`<${PolicyRow} key=${policy.name} policy=${policy} />`)}
            </tbody>
          </table>
        </div>`}
  </section>`;
}

function lastValue(values) {
  for (let i = values.length - 1; i >= Math.max(0, values.length - 3); i -= 1) {
    if (values[i] !== null) return values[i];
  }
  return null;
}

// Bytes per second by interface, now, from a policy's series.
function byInterface(series) {
  const found = new Map();
  const ways = { received_per_second: 0, sent_per_second: 1 };
  for (const one of series?.series ?? []) {
    if (!(one.name in ways)) continue;
    const both = found.get(one.labels.interface) ?? [0, 0];
    both[ways[one.name]] += lastValue(one.values) ?? 0;
    found.set(one.labels.interface, both);
  }
  return found;
}

function PolicyRow({ policy }) {
  const path = policy.sessions ? `v1/policies/${encodeURIComponent(policy.name)}/series` : null;
  const now = byInterface(usePoll(path, 5).data);
  const sum = (i) => [...now.values()].reduce((total, both) => total + both[i], 0);
  const total = sum(0) + sum(1);
  const parts = [...now].map(([name, both]) => ({
    name: `${name} ${percent((both[0] + both[1]) / total)}`,
    share: total ? (both[0] + both[1]) / total : 0,
    colour: `var(--${hue(name)})`,
  }));
  return html`<tr>
    <th scope="row"><a href=${href("sessions", "", { policy: policy.name })} class="name">${policy.name}</a></th>
    <td data-label="Path manager">${policy.path_manager.name}</td>
    <td data-label="Sessions" class="n">${count(policy.sessions)}</td>
    <td data-label="Received" class="n">${total ? rate(sum(0)) : "–"}</td>
    <td data-label="Sent" class="n">${total ? rate(sum(1)) : "–"}</td>
    <td data-label="By interface" class="share">
      ${total
        ? html`<${ShareBar} parts=${parts} label=${parts.map((part) => part.name).join(", ")} />
            <span>${parts.map((part) => part.name).join(", ")}</span>`
        : "–"}
    </td>
    <td data-label="Cgroups" class="cgroups">
      <code>${policy.cgroup}</code>
      <span class="under">
        ${policy.cgroups.length ? `attached to ${plural(policy.cgroups.length, "cgroup")}` : "no cgroup matches now"}
      </span>
    </td>
  </tr>`;
}

function Latest() {
  const [events, setEvents] = useState([]);
  const hear = useMemo(() => (event) => event.id && setEvents((old) => [event, ...old].slice(0, EVENTS)), []);
  useEvents(hear);
  return html`<section aria-labelledby="latest">
    <h2 id="latest">Since this page is open</h2>
    ${events.length === 0
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
        </ol>`}
  </section>`;
}

export function detailText(detail) {
  return Object.entries(detail)
    .filter(([, value]) => value !== null && value !== "")
    .map(([key, value]) => `${words(key)} ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(", ");
}
