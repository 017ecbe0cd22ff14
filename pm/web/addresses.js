// SPDX-License-Identifier: Apache-2.0
// Local addresses, and why each is used or not.

import { Badge, Empty, Waiting, html } from "./dom.js";
import { usePoll } from "./polling.js";
import { Table } from "./table.js";

const COLUMNS = [
  {
    name: "Address",
    row: true,
    sort: (one) => one.ip,
    cell: (one) => html`<code>${one.ip}/${one.prefix_len}</code>`,
  },
  {
    name: "Interface",
    width: 150,
    sort: (one) => one.interface,
    cell: (one) => html`${one.interface} ${one.kind && html`<span class="under">${one.kind}</span>`}`,
  },
  {
    name: "Used",
    width: 170,
    sort: (one) => (one.usable ? "a" : "b"),
    cell: (one) => html`<span class="badges">
      ${one.usable ? html`<${Badge} tone="good">used<//>` : html`<${Badge}>not used<//>`}
      ${one.backup && html`<${Badge}>backup<//>`} ${!one.up && html`<${Badge} tone="bad">down<//>`}
    </span>`,
  },
  {
    name: "Metric",
    title: "Of the route over the interface to elsewhere",
    width: 80,
    number: true,
    sort: (one) => one.metric,
    cell: (one) => one.metric ?? "–",
  },
  { name: "Why", width: 440, wide: true, cell: (one) => one.why },
];

export function AddressesView() {
  const { data, error } = usePoll("v1/addresses", 5, (event) => event.type === "address" || event.type === "config");
  return html`<h1>Addresses</h1>
    <p class="lead">The local addresses from which subflows can be opened.</p>
    ${data ? html`<${Addresses} addresses=${data.addresses} />` : html`<${Waiting} error=${error} />`}`;
}

function Addresses({ addresses }) {
  if (addresses.length === 0) return html`<${Empty}>This host has no address.<//>`;
  const used = addresses.filter((address) => address.usable).length;
  return html`<p>${used} of ${addresses.length} are used.</p>
    <${Table}
      label="Addresses"
      columns=${COLUMNS}
      rows=${addresses}
      keyOf=${(one) => `${one.ifindex} ${one.ip}`}
      rowClass=${(one) => (one.usable ? "" : "unused")}
    />`;
}
