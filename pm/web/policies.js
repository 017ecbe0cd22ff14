// SPDX-License-Identifier: Apache-2.0
// The policies as a table: their sessions, and over which interfaces their bytes go.

import { ShareBar, Waiting, html } from "./dom.js";
import { count, percent, plural, rate } from "./format.js";
import { useInView } from "./inview.js";
import { usePoll } from "./polling.js";
import { href } from "./route.js";
import { Table } from "./table.js";
import { hue } from "./theme.js";

const NEWEST = 3; // samples, of which one may not have every interface yet
const IN_VIEW_S = 1;
const OUT_OF_VIEW_S = 10;

const COLUMNS = [
  {
    name: "Policy",
    row: true,
    sort: (policy) => policy.name,
    cell: (policy) =>
      html`<a href=${href("sessions", "", { policy: policy.name })} class="name">${policy.name}</a>`,
  },
  {
    name: "Path manager",
    width: 120,
    sort: (policy) => policy.path_manager.name,
    cell: (policy) => policy.path_manager.name,
  },
  { name: "Sessions", number: true, width: 84, sort: (policy) => policy.sessions, cell: (policy) => count(policy.sessions) },
  { name: "Received", number: true, width: 104, cell: (_, now) => rate(now.received) },
  { name: "Sent", number: true, width: 104, cell: (_, now) => rate(now.sent) },
  { name: "By interface", width: 170, wide: true, cell: (_, now) => html`<${ByInterface} now=${now} />` },
  {
    name: "Cgroups",
    width: 260,
    wide: true,
    sort: (policy) => policy.cgroup,
    cell: (policy) => html`<code>${policy.cgroup}</code>
      <span class="under">
        ${policy.cgroups.length ? `attached to ${plural(policy.cgroups.length, "cgroup")}` : "no cgroup matches now"}
      </span>`,
  },
];

export function Policies() {
  const { data, error } = usePoll("v1/policies", 2, (event) => event.type === "policy" || event.type === "config");
  return html`<section aria-labelledby="policies">
    <h2 id="policies">Policies</h2>
    ${
      data
        ? html`<${Table}
          label="Policies"
          columns=${COLUMNS}
          rows=${data.policies}
          keyOf=${(policy) => policy.name}
          useRow=${useTraffic}
        />`
        : html`<${Waiting} error=${error} />`
    }
  </section>`;
}

// What a policy carries now: {received, sent, shares: [[interface, share]]}, bytes per second; null: not known.
function useTraffic(policy, element) {
  const inView = useInView(element);
  const path = policy.sessions ? `v1/policies/${encodeURIComponent(policy.name)}/series` : null;
  const { data } = usePoll(path, inView ? IN_VIEW_S : OUT_OF_VIEW_S, undefined, { lane: "series", inView });
  return traffic(data?.series ?? []);
}

function traffic(series) {
  const ways = { received_per_second: "received", sent_per_second: "sent" };
  const now = { received: null, sent: null };
  const both = new Map();
  for (const { name, labels, values } of series) {
    const value = ways[name] ? newest(values) : null;
    if (value === null) continue;
    now[ways[name]] += value;
    both.set(labels.interface, (both.get(labels.interface) ?? 0) + value);
  }
  const total = now.received + now.sent;
  return { ...now, shares: total ? [...both].map(([name, value]) => [name, value / total]) : [] };
}

const newest = (values) => values.slice(-NEWEST).findLast((value) => value !== null) ?? null;

function ByInterface({ now }) {
  if (now.shares.length === 0) return "–";
  const parts = now.shares.map(([name, share]) => ({
    name: `${name || "unknown"} ${percent(share)}`,
    share,
    colour: `var(--${hue(name)})`,
  }));
  const told = parts.map((part) => part.name).join(", ");
  return html`<${ShareBar} parts=${parts} label=${told} /><span class="under">${told}</span>`;
}
