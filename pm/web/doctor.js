// SPDX-License-Identifier: Apache-2.0
// What the service found on this system when it started, and the command that fixes what is missing.

import { Badge, Waiting, html } from "./dom.js";
import { dateAndClock, duration } from "./format.js";

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
    <p>${checks.filter((check) => check.ok).length} of ${checks.length} checks are well.</p>
    <ul class="checks">
      ${checks.map(
        (check) => html`<li key=${check.name} class="card">
          <h2>
            ${check.ok
              ? html`<${Badge} tone="good">well<//>`
              : html`<${Badge} tone=${check.required ? "bad" : "warn"}>${check.required ? "required" : "missing"}<//>`}
            ${" "}${check.name}
          </h2>
          <p>${check.found}</p>
          ${check.remedy && html`<pre tabindex="0">${check.remedy}</pre>`}
        </li>`,
      )}
    </ul>
    <${Counters} counters=${status.counters} />`;
}

const fact = (name, value) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`;

function Counters({ counters }) {
  const shown = Object.entries(counters).sort(([a], [b]) => a.localeCompare(b));
  return html`<section aria-labelledby="counters">
    <h2 id="counters">Counters since the start</h2>
    <dl class="facts-grid card">
      ${shown.map(([name, value]) => fact(name.replaceAll("_", " "), value.toLocaleString("en")))}
    </dl>
  </section>`;
}
