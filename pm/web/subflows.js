// SPDX-License-Identifier: Apache-2.0
// The subflows of a session as a table, and what can be done with them by hand.

import { call } from "./api.js";
import { ask } from "./dialogs.js";
import { Badge, PairName, html } from "./dom.js";
import { bytes, count, endpoint, milliseconds, rate } from "./format.js";
import { subflowTone } from "./lacks.js";
import { Table } from "./table.js";

// What a cell needs besides its subflow comes with the row: {one, path, session, speeds, interfaces, gone}.
const COLUMNS = [
  {
    name: "Subflow",
    row: true,
    sort: ({ one, interfaces }) => `${interfaces.get(one.local.ip) ?? ""} ${one.local.ip}`,
    cell: ({ one, interfaces }) => html`<${PairName} one=${one} interface=${interfaces.get(one.local.ip) ?? ""} />`,
  },
  {
    name: "State",
    width: 110,
    cell: ({ one }) => html`<span class="badges">
      <${Badge} tone=${subflowTone(one)}>${one.stuck ? "stuck" : one.state}<//>
      ${one.backup && html`<${Badge}>backup<//>`} ${one.peer_backup && html`<${Badge}>backup (peer)<//>`}
    </span>`,
  },
  {
    name: "Received",
    number: true,
    width: 100,
    sort: ({ one, speeds }) => speeds.received.get(one.id),
    cell: ({ one, speeds }) => rate(speeds.received.get(one.id)),
  },
  {
    name: "Sent",
    number: true,
    width: 100,
    sort: ({ one, speeds }) => speeds.sent.get(one.id),
    cell: ({ one, speeds }) => rate(speeds.sent.get(one.id)),
  },
  {
    name: "RTT",
    number: true,
    width: 80,
    sort: ({ one }) => one.rtt_s,
    cell: ({ one }) => milliseconds(one.rtt_s),
  },
  {
    name: "Retransmits",
    width: 100,
    number: true,
    sort: ({ one }) => one.retransmits,
    cell: ({ one }) => count(one.retransmits),
  },
  {
    name: "Volume",
    title: "Both ways",
    width: 84,
    number: true,
    least: true,
    sort: ({ one }) => volumeOf(one),
    cell: ({ one }) => bytes(volumeOf(one)),
  },
  { name: "Why it is there", width: 190, wide: true, cell: ({ one }) => one.reason },
  {
    name: "Actions",
    width: 150,
    hidden: true,
    wide: true,
    cell: ({ one, path, session, gone }) =>
      !gone && session.managed && html`<span class="actions"><${Actions} path=${path} one=${one} /></span>`,
  },
];

const volumeOf = (one) => (one.bytes_sent === null ? null : one.bytes_sent + one.bytes_received);

export function Subflows({ path, session, speeds, interfaces, gone }) {
  const rows = session.subflows.map((one) => ({ one, path, session, speeds, interfaces, gone }));
  return html`<${Table} label="Subflows" columns=${COLUMNS} rows=${rows} keyOf=${({ one }) => one.id} />`;
}

function Actions({ path, one }) {
  const name = `${endpoint(one.local)} → ${endpoint(one.remote)}`;
  const mine = `${path}/subflows/${encodeURIComponent(one.id)}`;
  const close = () =>
    ask({
      title: "Close this subflow?",
      text: `${name}. The service does not open it again.`,
      action: "Close the subflow",
      danger: true,
      run: () => call("DELETE", mine),
    });
  const change = () =>
    ask({
      title: one.backup ? "Clear the backup flag?" : "Make this subflow a backup?",
      text: `${name}. It carries data ${one.backup ? "again as others do" : "only where no other can"}. The peer is told.`,
      action: one.backup ? "Clear the flag" : "Make it a backup",
      run: () => call("PATCH", mine, { backup: !one.backup }),
    });
  if (one.state !== "established") return null;
  return html`<button class="plain" onClick=${change} aria-label=${`${one.backup ? "No backup" : "Backup"}: ${name}`}>
      ${one.backup ? "No backup" : "Backup"}
    </button>
    <button class="plain danger-text" onClick=${close} aria-label=${`Close ${name}`}>Close</button>`;
}

export function askToOpen(path, session, addresses, interfaces) {
  const first = session.subflows[0];
  const locals = addresses.filter((one) => one.usable);
  const Fields = () => html`<label>
      <span>From</span>
      <select name="local">
        ${locals.map((one) => html`<option key=${one.ip} value=${one.ip}>${one.ip} (${interfaces.get(one.ip)})</option>`)}
      </select>
    </label>
    <label>
      <span>To</span>
      <select name="remote">
        ${session.remote_addresses.map((one, i) => html`<option key=${i} value=${i}>${endpoint(one)}</option>`)}
      </select>
    </label>
    <label class="check"><input type="checkbox" name="backup" /> <span>Backup</span></label>`;
  ask({
    title: "Open a subflow",
    action: "Open it",
    form: Fields,
    run: (form) => {
      const to = session.remote_addresses[Number(form.elements.remote.value)];
      const body = { local: form.elements.local.value, remote: to.ip, remote_port: to.port || first?.remote.port };
      // Not ticked: as the configuration says for this address.
      if (form.elements.backup.checked) body.backup = true;
      return call("POST", `${path}/subflows`, body);
    },
  });
}
