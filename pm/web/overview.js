// SPDX-License-Identifier: Apache-2.0
// What people ask first: which interface carries what, over the last minutes, and which policy has which sessions.

import { Chart, RATE } from "./chart.js";
import { now } from "./clock.js";
import { Empty, Waiting, html, useEffect, useMemo, useRef, useState } from "./dom.js";
import { count } from "./format.js";
import { InterfaceTable } from "./interfaces.js";
import { Latest } from "./latest.js";
import { Policies } from "./policies.js";
import { usePoll } from "./polling.js";
import { useMinutes } from "./series.js";
import { HUES, hue } from "./theme.js";

export function OverviewView() {
  const { data, error } = usePoll("v1/interfaces", 1, (event) => event.type === "address");
  return html`<h1>Overview</h1>
    ${data ? html`<${Interfaces} data=${data} />` : html`<${Waiting} error=${error} />`}
    <${Policies} />
    <${Latest} />`;
}

function Interfaces({ data }) {
  const minutes = useMinutes();
  const [, setMerges] = useState(0);
  const redraw = useMemo(() => () => setMerges((n) => n + 1), []);
  const shown = useSteady(data.interfaces);
  const names = drawn(shown);
  names.forEach(hue); // their colours, in this order
  useMemo(() => {
    const seconds = now() / 1000;
    for (const one of shown) {
      minutes.add(`${one.name}/received`, seconds, one.received_per_second);
      minutes.add(`${one.name}/sent`, seconds, one.sent_per_second);
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
      <${Chart} label="Throughput by interface" times=${table.times} series=${series} unit=${RATE} stacked=${true} height=${230} />
      <${Sampled} data=${data} />
    </div>
    ${shown.length ? html`<${InterfaceTable} interfaces=${shown} leftOut=${data.left_out} />` : html`<${Empty}>No interface has an address.<//>`}
  </section>`;
}

// The service has those first that carried most. Here each keeps its place while the page is open.
function useSteady(interfaces) {
  const places = useRef(new Map());
  for (const { name } of interfaces) if (!places.current.has(name)) places.current.set(name, places.current.size);
  return [...interfaces].sort((a, b) => places.current.get(a.name) - places.current.get(b.name));
}

// The interfaces that have areas: as many as there are colours, those that carried most.
function drawn(interfaces) {
  const volume = (one) => one.bytes_sent + one.bytes_received;
  const found = interfaces.filter((one) => one.name && (one.used || volume(one) > 0));
  const most = new Set([...found].sort((a, b) => volume(b) - volume(a)).slice(0, HUES));
  return found.filter((one) => most.has(one)).map((one) => one.name);
}

// What the service kept from before this page was opened.
function Earlier({ name, minutes, merged }) {
  const { data } = usePoll(`v1/interfaces/${encodeURIComponent(name)}/series`, 45, undefined, { lane: "series" });
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
