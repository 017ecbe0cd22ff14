// SPDX-License-Identifier: Apache-2.0
// Subflows of a session that have ended: what they carried, and why they ended.

import { Badge, html } from "./dom.js";
import { bytes, clock, count, dateAndClock, duration, endpoint, milliseconds, plural } from "./format.js";

export function ClosedSubflows({ closed, earlier }) {
  if (closed.length === 0) return null;
  return html`<section aria-labelledby="closed">
    <h2 id="closed">Subflows that have ended</h2>
    <div class="table-frame" tabindex="0" role="group" aria-label="Subflows that have ended">
      <table class="wide">
        <thead>
          <tr>
            <th scope="col">Subflow</th>
            <th scope="col">Ended</th>
            <th scope="col" class="n">Lasted</th>
            <th scope="col" class="n">Received</th>
            <th scope="col" class="n">Sent</th>
            <th scope="col" class="n">RTT</th>
            <th scope="col" class="n">Retransmits</th>
            <th scope="col">Why it ended</th>
          </tr>
        </thead>
        <tbody>
          ${[...closed].reverse().map((one) => html`<${Row} key=${`${one.id} ${one.closed_at}`} one=${one} />`)}
        </tbody>
      </table>
    </div>
    ${
      earlier.count > 0 &&
      html`<p class="fine">
      ${`${plural(earlier.count, "subflow")} before these: `}
      ${`${bytes(earlier.bytes_received)} received, ${bytes(earlier.bytes_acked)} sent.`}
    </p>`
    }
  </section>`;
}

function Row({ one }) {
  return html`<tr>
    <th scope="row">
      <span class="name">${one.interface ?? ""}</span>
      <code class="under pair">${endpoint(one.local)} → ${endpoint(one.remote)}</code>
    </th>
    <td data-label="Ended">
      <time datetime=${one.closed_at} title=${dateAndClock(one.closed_at)}>${clock(one.closed_at)}</time>
    </td>
    <td data-label="Lasted" class="n">${duration(one.duration_s)}</td>
    <td data-label="Received" class="n">${bytes(one.bytes_received)}</td>
    <td data-label="Sent" class="n">${bytes(one.bytes_acked)}</td>
    <td data-label="RTT" class="n">${milliseconds(one.rtt_s || null)}</td>
    <td data-label="Retransmits" class="n">${count(one.retransmits)}</td>
    <td data-label="Why it ended">
      ${one.reason}
      ${
        one.source === "last_sample" &&
        html`${" "}<${Badge}><span title="What the kernel showed last, from before the end">last sample</span><//>`
      }
    </td>
  </tr>`;
}
