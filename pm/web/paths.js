// SPDX-License-Identifier: Apache-2.0
// The paths of a session as a picture: addresses of this host on the left, of the peer on the right, one line
// per subflow. Width is its share of the bytes, colour its state, a dashed line a backup, a dotted one is missing.

import { html, useEffect, useRef, useState } from "./dom.js";
import { milliseconds, percent, rate, words } from "./format.js";
import { subflowState, subflowTone } from "./lacks.js";

const ROW = 64;
const BOX = 46;
const WIDEST = 13;

export function PathsPicture({ session, speeds, interfaces }) {
  const place = useRef();
  const [width, setWidth] = useState(800);
  useEffect(() => {
    const watch = new ResizeObserver(() => place.current && setWidth(Math.max(300, place.current.clientWidth)));
    watch.observe(place.current);
    return () => watch.disconnect();
  }, []);
  const { lines, left, right } = arrange(session, speeds);
  const rows = Math.max(left.length, right.length, Math.ceil(lines.length / 2));
  const height = Math.max(rows * ROW + 16, lines.length * 24 + 24);
  const box = Math.min(190, width * 0.34);
  return html`<div class="picture" ref=${place}>
    <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${told(lines, interfaces)}>
      ${lines.map((line, i) => html`<${Line} key=${line.key} line=${line} from=${box} to=${width - box} at=${ends(line, i, lines, left, right, height)} />`)}
      ${left.map((ip, i) => html`<${Box} key=${ip} x=${0} y=${middle(i, left.length, height)} width=${box} name=${interfaces.get(ip) ?? ""} ip=${ip} />`)}
      ${right.map((ip, i) => html`<${Box} key=${ip} x=${width - box} y=${middle(i, right.length, height)} width=${box} name="peer" ip=${ip} />`)}
    </svg>
  </div>`;
}

// {lines, left, right}: all that there is and all that is missing.
function arrange(session, speeds) {
  const total = session.subflows.reduce((sum, one) => sum + weight(one, speeds), 0);
  const lines = session.subflows.map((one) => ({
    key: one.id,
    local: one.local.ip,
    remote: one.remote.ip,
    share: total > 0 ? weight(one, speeds) / total : 0,
    speed: speeds.get(one.id) ?? null,
    rtt: one.rtt_s,
    tone: subflowTone(one),
    state: subflowState(one),
    backup: one.backup || one.peer_backup,
  }));
  const there = new Set(lines.map((line) => `${line.local} ${line.remote}`));
  for (const one of session.missing ?? []) {
    if (there.has(`${one.local} ${one.remote}`)) continue;
    lines.push({ key: `missing ${one.local} ${one.remote} ${one.remote_port}`, local: one.local, remote: one.remote, share: 0, missing: true, tone: "absent", state: words(one.state) });
  }
  const unique = (key) => [...new Set(lines.map((line) => line[key]))];
  return { lines, left: unique("local"), right: unique("remote") };
}

// What passes now decides; where nothing does, what has passed.
function weight(one, speeds) {
  const moving = [...speeds.values()].some((speed) => speed > 0);
  return moving ? (speeds.get(one.id) ?? 0) : (one.bytes_sent ?? 0) + (one.bytes_received ?? 0);
}

const middle = (i, count, height) => ((i + 0.5) * height) / count;

// Lines that end at one box are spread over its side, so that two subflows of a pair are two lines.
function ends(line, i, lines, left, right, height) {
  const spread = (key, boxes) => {
    const mine = lines.filter((other) => other[key] === line[key]);
    const step = Math.min(12, (BOX - 8) / mine.length);
    return middle(boxes.indexOf(line[key]), boxes.length, height) + (mine.indexOf(line) - (mine.length - 1) / 2) * step;
  };
  return [spread("local", left), spread("remote", right)];
}

function Line({ line, from, to, at }) {
  const [y1, y2] = at;
  const half = (from + to) / 2;
  const text = line.missing ? line.state : [line.state === "established" ? percent(line.share) : line.state.replace("established, ", ""), milliseconds(line.rtt)].join(" · ");
  // Written nearer to this host, where lines to one peer are still apart.
  const t = to - from > 300 ? 0.36 : 0.5;
  const y = y1 * (1 - t) ** 3 + 3 * y1 * (1 - t) ** 2 * t + 3 * y2 * (1 - t) * t ** 2 + y2 * t ** 3;
  const x = from * (1 - t) ** 3 + 3 * half * (1 - t) ** 2 * t + 3 * half * (1 - t) * t ** 2 + to * t ** 3;
  return html`<g class=${`path ${line.tone} ${line.backup ? "backup" : ""}`}>
    <title>${`${line.local} → ${line.remote}: ${line.state}${line.speed === null || line.speed === undefined ? "" : `, ${rate(line.speed)}`}`}</title>
    <path d=${`M${from} ${y1}C${half} ${y1} ${half} ${y2} ${to} ${y2}`} stroke-width=${line.missing ? 1.5 : (2 + line.share * (WIDEST - 2)).toFixed(1)} />
    ${to - from > 110 &&
    html`<rect class="label" x=${x - text.length * 3.4 - 6} y=${y - 9} width=${text.length * 6.8 + 12} height="18" rx="9" />
      <text x=${x} y=${y + 4} text-anchor="middle">${text}</text>`}
  </g>`;
}

function Box({ x, y, width, name, ip }) {
  const small = ip.length > 20 || width < 120;
  return html`<g class="end">
    <rect x=${x + 0.5} y=${y - BOX / 2} width=${width - 1} height=${BOX} rx="8" />
    <text class="end-name" x=${x + width / 2} y=${y - 5} text-anchor="middle">${name}</text>
    <text class=${`end-ip ${small ? "small" : ""}`} x=${x + width / 2} y=${y + 13} text-anchor="middle">${ip}</text>
  </g>`;
}

function told(lines, interfaces) {
  const each = lines.map((line) => `${interfaces.get(line.local) ?? ""} ${line.local} to ${line.remote}: ${line.state}${line.missing ? "" : `, ${percent(line.share)}`}`);
  return `Paths. ${each.join(". ")}`;
}
