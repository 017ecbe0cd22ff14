// SPDX-License-Identifier: Apache-2.0
// The interfaces as a table: what each carries, its share, its state, and why it is not used.

import { Badge, ShareBar, html } from "./dom.js";
import { bytes, count, milliseconds, percent, rate } from "./format.js";
import { Table } from "./table.js";
import { hue } from "./theme.js";

const STATES = { up: "good", down: "bad", "no carrier": "bad", gone: "quiet" };
const volume = (one) => one.bytes_sent + one.bytes_received;

const COLUMNS = [
  { name: "Interface", row: true, sort: (one) => one.name, cell: (one) => html`<${Name} one=${one} />` },
  {
    name: "State",
    width: 90,
    sort: (one) => one.state,
    cell: (one) => html`<span class="badges">
      <${Badge} tone=${STATES[one.state] ?? "quiet"}>${one.state}<//>
      ${!one.used && html`<${Badge}>not used<//>`} ${one.backup && html`<${Badge}>backup<//>`}
    </span>`,
  },
  {
    name: "Received",
    number: true,
    width: 104,
    sort: (one) => one.received_per_second,
    cell: (one) => rate(one.received_per_second),
  },
  {
    name: "Sent",
    number: true,
    width: 104,
    sort: (one) => one.sent_per_second,
    cell: (one) => rate(one.sent_per_second),
  },
  { name: "Share", width: 110, sort: (one) => one.share, cell: (one) => html`<${Share} one=${one} />` },
  { name: "RTT", number: true, width: 80, sort: (one) => one.rtt, cell: (one) => milliseconds(one.rtt) },
  {
    name: "Retransmits",
    title: "Retransmitted segments: in all, and now",
    number: true,
    width: 96,
    sort: (one) => one.retransmits,
    cell: (one) => html`${count(one.retransmits)}
      <span class="under">
        ${one.retransmits_per_second > 0 ? html`<span class="warn-text">+${one.retransmits_per_second.toFixed(1)}/s</span>` : ""}
      </span>`,
  },
  { name: "Sessions", number: true, width: 84, sort: (one) => one.sessions, cell: (one) => count(one.sessions) },
  { name: "Subflows", number: true, width: 84, least: true, sort: (one) => one.subflows, cell: (one) => count(one.subflows) },
  {
    name: "Volume",
    title: "Since the service started, both ways",
    number: true,
    least: true,
    width: 84,
    sort: volume,
    cell: (one) => bytes(volume(one)),
  },
];

function Name({ one }) {
  return html`<span class="swatch" style=${{ "--swatch": one.used ? `var(--${hue(one.name)})` : "var(--line)" }}></span>
    <span class="name">${one.name || "unknown"}</span>
    <span class="under">${one.addresses.join(", ")}</span>
    ${!one.used && one.reason && html`<span class="under why">${one.reason}</span>`}`;
}

function Share({ one }) {
  const parts = [{ name: one.name, share: one.share ?? 0, colour: `var(--${hue(one.name)})` }];
  return html`<${ShareBar} parts=${parts} label=${`${percent(one.share)} of the traffic`} />
    <span class="under">${percent(one.share)}</span>`;
}

export function InterfaceTable({ interfaces, leftOut }) {
  return html`<${Table}
      label="Interfaces"
      columns=${COLUMNS}
      rows=${interfaces}
      keyOf=${(one) => one.name}
      rowClass=${(one) => (one.used ? "" : "unused")}
    />
    ${leftOut > 0 && html`<p class="fine">And ${count(leftOut)} more, which carried least.</p>`}`;
}
