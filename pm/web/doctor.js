// SPDX-License-Identifier: Apache-2.0
// What the service found on this system when it started, and the command that fixes what is missing.

import { Badge, Waiting, html } from "./dom.js";
import { count, dateAndClock, duration, plural, words } from "./format.js";
import { Table } from "./table.js";

const COLUMNS = [
  { name: "Check", row: true, cell: (check) => html`<strong class="name">${check.name}</strong>` },
  {
    name: "Result",
    width: 100,
    cell: (check) =>
      check.ok
        ? html`<${Badge} tone="good">well<//>`
        : html`<${Badge} tone=${check.required ? "bad" : "warn"}>${check.required ? "required" : "missing"}<//>`,
  },
  {
    name: "Found",
    width: 800,
    wide: true,
    cell: (check) => html`<span class="quiet-text">${check.found}</span>
      ${check.remedy && html`<span class="remedy">${check.remedy}</span>`}`,
  },
];

export function DoctorView({ status }) {
  const { data, error } = status;
  return html`<h1>Doctor</h1>
    ${data ? html`<${Found} status=${data} />` : html`<${Waiting} error=${error} />`}`;
}

function Found({ status }) {
  const { checks, release } = status.kernel;
  return html`<dl class="facts-grid card">
      ${fact("Version", status.version)} ${fact("Kernel", release)} ${fact("Datapath", status.datapath)}
      ${fact("Policies by", status.selection)} ${fact("Process", status.pid)}
      ${fact("Started", `${dateAndClock(status.started_at)} (${duration(status.uptime_s)} ago)`)}
    </dl>
    <p class="lead">${checks.filter((check) => check.ok).length} of ${plural(checks.length, "check")} are well.</p>
    <${Table}
      label="Checks"
      columns=${COLUMNS}
      rows=${[...checks].sort((a, b) => a.ok - b.ok || b.required - a.required)}
      keyOf=${(check) => check.name}
    />
    <${Counters} counters=${status.counters} />`;
}

const fact = (name, value) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`;

function Counters({ counters }) {
  const shown = Object.entries(counters).sort(([a], [b]) => a.localeCompare(b));
  return html`<section aria-labelledby="counters">
    <h2 id="counters">Counters since the start</h2>
    <dl class="facts-grid card">
      ${shown.map(([name, value]) => fact(words(name), count(value)))}
    </dl>
  </section>`;
}
