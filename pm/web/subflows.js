// SPDX-License-Identifier: Apache-2.0
// The subflows of a session as a table, and what can be done with them by hand.

import { call } from "./api.js";
import { ask } from "./dialogs.js";
import { Badge, html } from "./dom.js";
import { bytes, count, endpoint, milliseconds, rate } from "./format.js";
import { subflowTone } from "./lacks.js";

export function Subflows({ path, session, speeds, interfaces, gone }) {
  return html`<div class="table-frame" tabindex="0" role="group" aria-label="Subflows">
    <table class="wide">
      <thead>
        <tr>
          <th scope="col">Subflow</th>
          <th scope="col">State</th>
          <th scope="col" class="n">Received</th>
          <th scope="col" class="n">Sent</th>
          <th scope="col" class="n">RTT</th>
          <th scope="col" class="n">Retransmits</th>
          <th scope="col" class="n">Volume</th>
          <th scope="col">Why it is there</th>
          <th scope="col"><span class="unseen">Actions</span></th>
        </tr>
      </thead>
      <tbody>
        ${session.subflows.map(
          (one) => html`<tr key=${one.id}>
            <th scope="row">
              <span class="name">${interfaces.get(one.local.ip) ?? ""}</span>
              <code class="under pair">${endpoint(one.local)} → ${endpoint(one.remote)}</code>
            </th>
            <td data-label="State">
              <${Badge} tone=${subflowTone(one)}>${one.stuck ? "stuck" : one.state}<//>
              ${one.backup && html` <${Badge}>backup<//>`} ${one.peer_backup && html` <${Badge}>backup (peer)<//>`}
            </td>
            <td data-label="Received" class="n">${rate(speeds.received.get(one.id))}</td>
            <td data-label="Sent" class="n">${rate(speeds.sent.get(one.id))}</td>
            <td data-label="RTT" class="n">${milliseconds(one.rtt_s)}</td>
            <td data-label="Retransmits" class="n">${count(one.retransmits)}</td>
            <td data-label="Volume" class="n">${one.bytes_sent === null ? "–" : bytes(one.bytes_sent + one.bytes_received)}</td>
            <td data-label="Why it is there">${one.reason}</td>
            <td class="actions">${!gone && session.managed && html`<${Actions} path=${path} one=${one} />`}</td>
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
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
      text: `${name}. ${one.backup ? "It carries data again as the others do." : "It carries data only where no other can."} The peer is told.`,
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
