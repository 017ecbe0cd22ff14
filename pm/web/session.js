// SPDX-License-Identifier: Apache-2.0
// One session: its paths, what they carry, what is missing and why, what happened.

import { Badge, Empty, Evidence, Notice, Waiting, html, useMemo } from "./dom.js";
import { bytes, clock, count, dateAndClock, duration, endpoint, plural, words } from "./format.js";
import { usePoll } from "./live.js";
import { PathsPicture } from "./paths.js";
import { volume } from "./pages.js";
import { href } from "./route.js";
import { SessionPlots, useSpeeds } from "./session_plots.js";
import { Subflows, askToOpen } from "./subflows.js";

export function SessionView({ id }) {
  const path = `v1/sessions/${encodeURIComponent(id)}`;
  const mine = useMemo(() => (event) => event.token === id || event.type === "address", [id]);
  const { data, error } = usePoll(path, 1, mine);
  const addresses = usePoll("v1/addresses", 20, (event) => event.type === "address").data;
  const interfaces = useMemo(() => new Map((addresses?.addresses ?? []).map((one) => [one.ip, one.interface])), [addresses]);
  const gone = error?.status === 404;
  return html`<p class="crumbs"><a href=${href("sessions")}>Sessions</a></p>
    <h1>Session <code>${id}</code></h1>
    ${gone &&
    html`<${Notice} tone=${data ? "warn" : "bad"} title=${data ? "This session has ended" : "There is no such session"}>
      ${data ? "What is shown is the last that was known." : "It may have ended, or its token is another one."}
    <//>`}
    ${data
      ? html`<${Detail} path=${path} session=${data} interfaces=${interfaces} gone=${gone} addresses=${addresses?.addresses ?? []} />`
      : !gone && html`<${Waiting} error=${error} />`}`;
}

function Detail({ path, session, interfaces, gone, addresses }) {
  const speeds = useSpeeds(session);
  return html`<${Facts} session=${session} />
    <section aria-labelledby="paths">
      <div class="section-head">
        <h2 id="paths">Paths</h2>
        ${!gone &&
        session.managed &&
        html`<button onClick=${() => askToOpen(path, session, addresses, interfaces)}>Open a subflow …</button>`}
      </div>
      <div class="card">
        <${PathsPicture} session=${session} speeds=${speeds.total} interfaces=${interfaces} />
        <ul class="legend" aria-hidden="true">
          <li><i class="mark good"></i> established</li>
          <li><i class="mark warn"></i> opening</li>
          <li><i class="mark bad"></i> stuck</li>
          <li><i class="mark absent"></i> missing</li>
          <li><i class="mark good backup"></i> backup</li>
          <li class="legend-time">width: share of the bytes</li>
        </ul>
      </div>
      <${Subflows} path=${path} session=${session} speeds=${speeds} interfaces=${interfaces} gone=${gone} />
    </section>
    <${WhyPart} path=${path} gone=${gone} />
    <${SessionPlots} path=${path} session=${session} speeds=${speeds} interfaces=${interfaces} />
    <${Options} options=${session.options} subflows=${session.subflows} />
    <${History} events=${session.events} />`;
}

function Facts({ session }) {
  const fact = (name, value) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
  const totals = session.totals;
  const all = totals ? totals.bytes_sent + totals.bytes_received : volume(session);
  return html`<dl class="facts-grid card">
    ${fact("State", html`<${Badge} tone=${session.state === "established" ? "good" : "quiet"}>${session.state}<//>`)}
    ${fact("Policy", session.policy ? html`<a href=${href("sessions", "", { policy: session.policy })}>${session.policy}</a>` : "none")}
    ${fact("Path manager", `${session.path_manager ?? "none"}${session.program ? ` (program ${session.program})` : ""}`)}
    ${fact("Role", session.role)} ${fact("Age", html`<span title=${dateAndClock(session.created_at)}>${duration(session.age_s)}</span>`)}
    ${fact("Volume", html`<span title=${totals ? "with subflows that have closed" : "of the subflows that are there"}>${bytes(all)}</span>`)}
    ${fact("Managed", session.managed ? "by the service" : "not by the service")}
    ${fact("Cgroup", session.cgroup ? html`<a href=${href("sessions", "", { cgroup: session.cgroup })}><code>${session.cgroup}</code></a>` : "unknown")}
    ${fact("Addresses of the peer", session.remote_addresses.map((one) => `${endpoint(one)} (id ${one.address_id})`).join(", "))}
  </dl>`;
}

function WhyPart({ path, gone }) {
  const { data, error } = usePoll(gone ? null : `${path}/why`, 3);
  if (gone && !data) return null;
  return html`<section aria-labelledby="why">
    <h2 id="why">What is missing, and why</h2>
    ${!data
      ? html`<${Waiting} error=${error} />`
      : html`<div class="card">
          ${data.findings.length === 0 && data.pairs.length === 0 && html`<${Empty}>Nothing is missing.<//>`}
          ${data.findings.length > 0 && html`<${Evidence} findings=${data.findings} />`}
          ${data.pairs.map((pair) => html`<${MissingPair} key=${`${pair.local} ${pair.remote} ${pair.remote_port}`} pair=${pair} />`)}
        </div>`}
  </section>`;
}

function MissingPair({ pair }) {
  const more = [
    pair.failures > 0 && plural(pair.failures, "failure"),
    pair.age_s !== null && `SYN sent ${duration(pair.age_s)} ago`,
    pair.retransmits > 0 && `sent again ${count(pair.retransmits)} times`,
    pair.retry_in_s !== null && `next try in ${duration(pair.retry_in_s)}`,
  ].filter(Boolean);
  return html`<div class="missing">
    <h3>
      <code>${pair.local} → ${endpoint({ ip: pair.remote, port: pair.remote_port })}</code>
      <${Badge} tone=${pair.state === "failed" || pair.state === "stuck" ? "bad" : "warn"}>${words(pair.state)}<//>
    </h3>
    ${more.length > 0 && html`<p class="fine">${more.join(", ")}</p>`}
    ${pair.findings.length > 0 ? html`<${Evidence} findings=${pair.findings} />` : pair.reason && html`<p>${pair.reason}</p>`}
  </div>`;
}

function Options({ options, subflows }) {
  if (options.length === 0) return null;
  const name = (id) => {
    const one = subflows.find((subflow) => subflow.id === id);
    return one ? `${endpoint(one.local)} → ${endpoint(one.remote)}` : id;
  };
  return html`<section aria-labelledby="options">
    <h2 id="options">TCP options</h2>
    <div class="table-frame" tabindex="0" role="group" aria-label="TCP options">
      <table>
        <thead>
          <tr><th scope="col">Subflow</th><th scope="col">Option</th><th scope="col">Sent</th><th scope="col">Received</th><th scope="col">Applied</th><th scope="col">Refused</th></tr>
        </thead>
        <tbody>
          ${options.map(
            (one) => html`<tr key=${`${one.subflow} ${one.option}`}>
              <th scope="row">${name(one.subflow)}</th>
              <td>${one.option}</td>
              <td>${one.sent ? "yes" : "no"}</td>
              <td>${one.received ? "yes" : "no"}</td>
              <td>${one.applied ?? "–"}</td>
              <td>${one.refused ?? "–"}</td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </section>`;
}

function History({ events }) {
  return html`<section aria-labelledby="history">
    <h2 id="history">History</h2>
    <ol class="log">
      ${[...events].reverse().map(
        (event, i) => html`<li key=${`${event.time} ${i}`}>
          <time datetime=${event.time} title=${dateAndClock(event.time)}>${clock(event.time)}</time>
          <span>${words(event.event)}</span>
          <span class="detail">${event.detail}</span>
        </li>`,
      )}
    </ol>
  </section>`;
}
