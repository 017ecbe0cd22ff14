// SPDX-License-Identifier: Apache-2.0
// Subflows of a session that have ended: what they carried, and why they ended.

import { Badge, PairName, html } from "./dom.js";
import { bytes, clock, count, dateAndClock, duration, milliseconds, plural } from "./format.js";
import { Table } from "./table.js";

const COLUMNS = [
  {
    name: "Subflow",
    row: true,
    cell: (one) => html`<${PairName} one=${one} interface=${one.interface ?? ""} />`,
  },
  {
    name: "Ended",
    width: 90,
    sort: (one) => one.closed_at,
    cell: (one) =>
      html`<time datetime=${one.closed_at} title=${dateAndClock(one.closed_at)}>${clock(one.closed_at)}</time>`,
  },
  { name: "Lasted", number: true, width: 90, sort: (one) => one.duration_s, cell: (one) => duration(one.duration_s) },
  { name: "Received", number: true, width: 90, sort: (one) => one.bytes_received, cell: (one) => bytes(one.bytes_received) },
  { name: "Sent", number: true, width: 90, sort: (one) => one.bytes_acked, cell: (one) => bytes(one.bytes_acked) },
  { name: "RTT", number: true, width: 90, least: true, cell: (one) => milliseconds(one.rtt_s || null) },
  { name: "Retransmits", number: true, width: 90, least: true, cell: (one) => count(one.retransmits) },
  {
    name: "Why it ended",
    width: 230,
    wide: true,
    cell: (one) => html`${one.reason}
      ${
        one.source === "last_sample" &&
        html`${" "}<${Badge}><span title="What the kernel showed last, from before the end">last sample</span><//>`
      }`,
  },
];

export function ClosedSubflows({ closed, earlier }) {
  if (closed.length === 0) return null;
  return html`<section aria-labelledby="closed">
    <h2 id="closed">Subflows that have ended</h2>
    <${Table}
      label="Subflows that have ended"
      columns=${COLUMNS}
      rows=${[...closed].reverse()}
      keyOf=${(one) => `${one.id} ${one.closed_at}`}
    />
    ${
      earlier.count > 0 &&
      html`<p class="fine">
      ${`${plural(earlier.count, "subflow")} before these: `}
      ${`${bytes(earlier.bytes_received)} received, ${bytes(earlier.bytes_acked)} sent.`}
    </p>`
    }
  </section>`;
}
