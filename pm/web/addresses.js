// SPDX-License-Identifier: Apache-2.0
// Local addresses, and why each is used or not.

import { Badge, Empty, Waiting, html } from "./dom.js";
import { usePoll } from "./live.js";

export function AddressesView() {
  const { data, error } = usePoll("v1/addresses", 5, (event) => event.type === "address" || event.type === "config");
  return html`<h1>Addresses</h1>
    <p class="lead">The local addresses from which subflows can be opened.</p>
    ${data ? html`<${Table} addresses=${data.addresses} />` : html`<${Waiting} error=${error} />`}`;
}

function Table({ addresses }) {
  if (addresses.length === 0) return html`<${Empty}>This host has no address.<//>`;
  const used = addresses.filter((address) => address.usable).length;
  return html`<p>${used} of ${addresses.length} are used.</p>
    <div class="table-frame" tabindex="0" role="group" aria-label="Addresses">
      <table>
        <thead>
          <tr>
            <th scope="col">Address</th>
            <th scope="col">Interface</th>
            <th scope="col">Used</th>
            <th scope="col">Why</th>
            <th scope="col" class="n">Metric</th>
          </tr>
        </thead>
        <tbody>
          ${addresses.map(
            (address) => html`<tr key=${`${address.ifindex} ${address.ip}`} class=${address.usable ? "" : "unused"}>
              <th scope="row"><code>${address.ip}/${address.prefix_len}</code></th>
              <td>${address.interface} ${address.kind && html`<span class="under">${address.kind}</span>`}</td>
              <td>
                ${address.usable ? html`<${Badge} tone="good">used<//>` : html`<${Badge}>not used<//>`}
                ${address.backup && html` <${Badge}>backup<//>`} ${!address.up && html` <${Badge} tone="bad">down<//>`}
              </td>
              <td>${address.why}</td>
              <td class="n">${address.metric ?? "–"}</td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>`;
}
