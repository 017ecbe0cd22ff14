// SPDX-License-Identifier: Apache-2.0
// One session: its paths, what they carry, what is missing and why, what happened.

import { ClosedSubflows } from "./closed.js";
import { Badge, Empty, Evidence, Notice, Waiting, html, useEffect, useMemo, useRef, useState } from "./dom.js";
import { bytes, clock, count, dateAndClock, duration, endpoint, plural, words } from "./format.js";
import { usePoll } from "./polling.js";
import { PathsPicture } from "./paths.js";
import { href } from "./route.js";
import { SessionPlots, useSpeeds } from "./session_plots.js";
import { Subflows, askToOpen } from "./subflows.js";
import { Table } from "./table.js";

const GONE_EVERY_S = 30; // what does not exist seldom comes: its event says so, where the stream had it

export function SessionView({ id, query }) {
  const path = `v1/sessions/${encodeURIComponent(id)}`;
  const mine = useMemo(() => (event) => event.token === id || event.type === "address", [id]);
  const [everyS, setEveryS] = useState(1);
  const { data, error } = usePoll(path, everyS, mine);
  const addresses = usePoll("v1/addresses", 20, (event) => event.type === "address").data;
  const interfaces = useMemo(
    () => new Map((addresses?.addresses ?? []).map((one) => [one.ip, one.interface])),
    [addresses],
  );
  const gone = error?.status === 404;
  useEffect(() => setEveryS(gone ? GONE_EVERY_S : 1), [gone]);
  return html`<p class="crumbs"><a href=${href("sessions")}>Sessions</a></p>
    <h1>Session <code>${id}</code></h1>
    ${
      gone &&
      html`<${Notice} tone=${data ? "warn" : "bad"} title=${data ? "This session has ended" : "There is no such session"}>
      ${data ? "What is shown is the last that was known." : "It may have ended, or its token is another one."}
    <//>`
    }
    ${
      data
        ? html`<${Detail} path=${path} session=${data} interfaces=${interfaces} gone=${gone} addresses=${addresses?.addresses ?? []} part=${query.get("part")} />`
        : !gone && html`<${Waiting} error=${error} />`
    }`;
}

function Detail({ path, session, interfaces, gone, addresses, part }) {
  const speeds = useSpeeds(session);
  return html`<${Facts} session=${session} />
    <section aria-labelledby="paths">
      <div class="section-head">
        <h2 id="paths">Paths</h2>
        ${
          !gone &&
          session.managed &&
          html`<button onClick=${() => askToOpen(path, session, addresses, interfaces)}>Open a subflow …</button>`
        }
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
    <${WhyPart} path=${path} gone=${gone} asked=${part === "why"} />
    <${SessionPlots} path=${path} session=${session} speeds=${speeds} interfaces=${interfaces} />
    <${ClosedSubflows} closed=${session.closed_subflows} earlier=${session.earlier_subflows} />
    <${Options} options=${session.options} subflows=${session.subflows} />
    <${History} events=${session.events} />`;
}

function Facts({ session }) {
  const { policy, cgroup, totals, program } = session;
  const facts = {
    State: html`<${Badge} tone=${session.state === "established" ? "good" : "quiet"}>${session.state}<//>`,
    Policy: policy ? html`<a href=${href("sessions", "", { policy })}>${policy}</a>` : "none",
    "Path manager": `${session.path_manager ?? "none"}${program ? ` (program ${program})` : ""}`,
    Role: session.role,
    Age: html`<span title=${dateAndClock(session.created_at)}>${duration(session.age_s)}</span>`,
    Received: html`<span title="Also by subflows that have ended">${bytes(totals.bytes_received)}</span>`,
    Sent: html`<span title="Also by subflows that have ended">${bytes(totals.bytes_acked)}</span>`,
    Managed: session.managed ? "by the service" : "not by the service",
    Cgroup: cgroup ? html`<a href=${href("sessions", "", { cgroup })}><code>${cgroup}</code></a>` : "unknown",
    "Addresses of the peer": session.remote_addresses
      .map((one) => `${endpoint(one)} (id ${one.address_id})`)
      .join(", "),
  };
  return html`<dl class="facts-grid card">
    ${Object.entries(facts).map(
      ([name, value]) => html`<div key=${name}>
        <dt>${name}</dt>
        <dd>${value}</dd>
      </div>`,
    )}
  </dl>`;
}

function WhyPart({ path, gone, asked }) {
  const { data, error } = usePoll(gone ? null : `${path}/why`, 3);
  const heading = useRef();
  useEffect(() => {
    if (asked) heading.current?.focus(); // and is scrolled to
  }, []);
  if (gone && !data) return null;
  return html`<section aria-labelledby="why">
    <h2 id="why" tabindex="-1" ref=${heading}>What is missing, and why</h2>
    ${
      !data
        ? html`<${Waiting} error=${error} />`
        : html`<div class="card">
          ${data.findings.length === 0 && data.pairs.length === 0 && html`<${Empty}>Nothing is missing.<//>`}
          ${data.findings.length > 0 && html`<${Evidence} findings=${data.findings} />`}
          ${data.pairs.map((pair) => {
            const key = `${pair.local} ${pair.remote} ${pair.remote_port}`;
            return html`<${MissingPair} key=${key} pair=${pair} />`;
          })}
        </div>`
    }
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
    ${
      pair.findings.length > 0
        ? html`<${Evidence} findings=${pair.findings} />`
        : pair.reason && html`<p>${pair.reason}</p>`
    }
  </div>`;
}

function Options({ options, subflows }) {
  if (options.length === 0) return null;
  const name = (id) => {
    const one = subflows.find((subflow) => subflow.id === id);
    return one ? `${endpoint(one.local)} → ${endpoint(one.remote)}` : id;
  };
  const columns = [
    { name: "Subflow", row: true, cell: (one) => html`<code>${name(one.subflow)}</code>` },
    { name: "Option", cell: (one) => one.option },
    { name: "Sent", cell: (one) => (one.sent ? "yes" : "no") },
    { name: "Received", cell: (one) => (one.received ? "yes" : "no") },
    { name: "Applied", number: true, cell: (one) => one.applied ?? "–" },
    { name: "Refused", wide: true, cell: (one) => one.refused ?? "–" },
  ];
  return html`<section aria-labelledby="options">
    <h2 id="options">TCP options</h2>
    <${Table}
      label="TCP options"
      columns=${columns}
      rows=${options}
      keyOf=${(one) => `${one.subflow} ${one.option}`}
    />
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
