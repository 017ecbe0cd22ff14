// SPDX-License-Identifier: Apache-2.0
// What each subflow of a session carried in the last minutes, and its round-trip time.

import { Chart, RATE, TIME } from "./chart.js";
import { html, useEffect, useMemo, useRef, useState } from "./dom.js";
import { endpoint } from "./format.js";
import { usePoll } from "./polling.js";
import { Sampled } from "./overview.js";
import { useMinutes } from "./series.js";
import { HUES } from "./theme.js";

const WAYS = ["received", "sent"];
const KINDS = [...WAYS, "rtt"];

// {sent, received, total: Map of subflow id to bytes per second, minutes}, from one answer to the next.
export function useSpeeds(session) {
  const before = useRef(new Map());
  const minutes = useMinutes();
  return useMemo(() => {
    const speeds = { sent: new Map(), received: new Map(), total: new Map(), minutes };
    const at = Date.parse(session.sampled_at) / 1000;
    const now = new Map();
    for (const one of session.subflows) {
      if (one.bytes_sent === null) continue;
      const sample = { at, sent: one.bytes_sent, received: one.bytes_received };
      const old = before.current.get(one.id);
      now.set(one.id, sample);
      minutes.add(`${one.id}/rtt`, at, one.rtt_s);
      if (!old || at <= old.at) continue;
      for (const way of WAYS) {
        const speed = Math.max(0, (sample[way] - old[way]) / (at - old.at));
        speeds[way].set(one.id, speed);
        minutes.add(`${one.id}/${way}`, at, speed);
      }
      speeds.total.set(one.id, speeds.sent.get(one.id) + speeds.received.get(one.id));
    }
    before.current = now;
    return speeds;
  }, [session]);
}

export function SessionPlots({ path, session, speeds, interfaces }) {
  const { minutes } = speeds;
  const earlier = usePoll(`${path}/series`, 45).data;
  const [, redraw] = useState(0);
  const names = useRef(new Map()); // {name, number} by id, also of subflows that closed in these minutes
  useEffect(() => {
    if (!earlier) return;
    minutes.merge(earlier, (one) => key(one, names.current));
    redraw((n) => n + 1);
  }, [earlier]);
  for (const one of session.subflows) {
    const { ip, port } = one.local;
    const from = interfaces.has(ip) ? `${interfaces.get(ip)}:${port || "…"}` : endpoint(one.local);
    name(names.current, one.id, `${from} → ${one.remote.ip}`);
  }
  const alive = new Set(session.subflows.map((one) => one.id));
  for (const id of names.current.keys()) {
    if (!alive.has(id) && !KINDS.some((kind) => minutes.recent(`${id}/${kind}`))) names.current.delete(id);
  }
  const lines = [...names.current].map(([id, { name, number }]) => {
    return { id, name, hue: `hue-${number % HUES}`, dash: number % (2 * HUES) >= HUES };
  });
  const throughput = minutes.table(lines.flatMap(({ id }) => WAYS.map((way) => `${id}/${way}`)));
  const rtt = minutes.table(lines.map(({ id }) => `${id}/rtt`));
  const series = WAYS.flatMap((way) =>
    lines.map((line) => ({ ...line, values: throughput.values.get(`${line.id}/${way}`), below: way === "sent" })),
  );
  return html`<section aria-labelledby="plots">
    <h2 id="plots">The last minutes</h2>
    <div class="plots">
      <div class="card">
        <p class="chart-title">Throughput by subflow: received above the line, sent below</p>
        <${Chart} label="Throughput by subflow" times=${throughput.times} series=${series} unit=${RATE} stacked=${true} />
      </div>
      <div class="card">
        <p class="chart-title">Round-trip time by subflow</p>
        <${Chart}
          label="Round-trip time by subflow"
          times=${rtt.times}
          series=${lines.map((line) => ({ ...line, values: rtt.values.get(`${line.id}/rtt`) }))}
          unit=${TIME}
        />
      </div>
    </div>
    ${earlier && html`<${Sampled} data=${earlier} />`}
  </section>`;
}

// The line of one series of the service; a subflow that this page has not seen gets a name too.
function key({ name: kind, labels }, names) {
  const line = { sent_per_second: "sent", received_per_second: "received", rtt: "rtt" }[kind];
  if (!line || !labels.subflow) return null;
  if (!names.has(labels.subflow)) name(names, labels.subflow, `${labels.interface || "?"} (closed)`);
  return `${labels.subflow}/${line}`;
}

// The name may change; the number, which is its colour, does not.
function name(names, id, text) {
  const last = [...names.values()].at(-1)?.number ?? -1;
  names.set(id, { number: names.get(id)?.number ?? last + 1, name: text });
}
