// SPDX-License-Identifier: Apache-2.0
// The paths of a session as a picture: addresses of this host on the left, of the peer on the right, one line
// per subflow. Width is its share of the bytes, colour its state, a dashed line a backup, a dotted one is missing.

import { html, useEffect, useRef, useState } from "./dom.js";
import { milliseconds, percent, rate, words } from "./format.js";
import { subflowState, subflowTone } from "./lacks.js";

const GAP = 18; // between two boxes
const LINE = 13; // of an address
const LETTER = { plain: 7.3, small: 6.1 }; // as wide as one of an address is
const WIDEST = 13;

export function PathsPicture({ session, speeds, interfaces }) {
  const place = useRef();
  const [width, setWidth] = useState(800);
  useEffect(() => {
    const watch = new ResizeObserver(() => place.current && setWidth(Math.max(200, place.current.clientWidth)));
    watch.observe(place.current);
    return () => watch.disconnect();
  }, []);
  const { lines, left, right } = arrange(session, speeds);
  const box = Math.min(190, width * 0.34);
  const texts = new Map([...left, ...right].map((ip) => [ip, broken(ip, box - 14)]));
  const tall = 33 + LINE * Math.max(1, ...[...texts.values()].map(({ parts }) => parts.length));
  const rows = Math.max(left.length, right.length, Math.ceil(lines.length / 2));
  const height = Math.max(rows * (tall + GAP) + 16, lines.length * 24 + 24);
  const boxes = (ips, x, name) =>
    ips.map((ip, i) => {
      const y = middle(i, ips.length, height);
      return html`<${Box} key=${ip} x=${x} y=${y} width=${box} tall=${tall} name=${name(ip)} text=${texts.get(ip)} />`;
    });
  return html`<div class="picture" ref=${place}>
    <svg width=${width} height=${height} role="img" aria-label=${told(lines, interfaces)}>
      ${lines.map((line) => {
        const at = ends(line, lines, left, right, height, tall);
        return html`<${Line} key=${line.key} line=${line} from=${box} to=${width - box} at=${at} />`;
      })}
      ${boxes(left, 0, (ip) => interfaces.get(ip) ?? "")} ${boxes(right, width - box, () => "peer")}
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
    lines.push({
      key: `missing ${one.local} ${one.remote} ${one.remote_port}`,
      local: one.local,
      remote: one.remote,
      share: 0,
      missing: true,
      tone: "absent",
      state: words(one.state),
    });
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
function ends(line, lines, left, right, height, tall) {
  const spread = (key, boxes) => {
    const mine = lines.filter((other) => other[key] === line[key]);
    const step = Math.min(12, (tall - 8) / mine.length);
    return (
      middle(boxes.indexOf(line[key]), boxes.length, height) + (mine.indexOf(line) - (mine.length - 1) / 2) * step
    );
  };
  return [spread("local", left), spread("remote", right)];
}

function Line({ line, from, to, at }) {
  const [y1, y2] = at;
  const half = (from + to) / 2;
  const width = line.missing ? 1.5 : (2 + line.share * (WIDEST - 2)).toFixed(1);
  const text = line.missing
    ? line.state
    : [
        line.state === "established" ? percent(line.share) : line.state.replace("established, ", ""),
        milliseconds(line.rtt),
      ].join(" · ");
  const room = text.length * 6.8 + 12;
  // Written nearer to this host, where lines to one peer are still apart.
  const t = to - from > 300 ? 0.36 : 0.5;
  const y = y1 * (1 - t) ** 3 + 3 * y1 * (1 - t) ** 2 * t + 3 * y2 * (1 - t) * t ** 2 + y2 * t ** 3;
  const x = from * (1 - t) ** 3 + 3 * half * (1 - t) ** 2 * t + 3 * half * (1 - t) * t ** 2 + to * t ** 3;
  return html`<g class=${`path ${line.tone} ${line.backup ? "backup" : ""}`}>
    <title>${line.local} → ${line.remote}: ${line.state}${line.missing ? "" : `, ${rate(line.speed)}`}</title>
    <path d=${`M${from} ${y1}C${half} ${y1} ${half} ${y2} ${to} ${y2}`} stroke-width=${width} />
    ${
      to - from > 110 &&
      html`<rect class="label" x=${x - room / 2} y=${y - 9} width=${room} height="18" rx="9" />
      <text x=${x} y=${y + 4} text-anchor="middle">${text}</text>`
    }
  </g>`;
}

// An address in lines that fit: one, or in smaller letters as many as it takes.
function broken(ip, room) {
  if (ip.length * LETTER.plain <= room) return { parts: [ip], small: false };
  const most = Math.floor(room / LETTER.small);
  const parts = [""];
  for (const group of ip.match(/[^:.]+[:.]*|[:.]+/g) ?? []) {
    const last = parts.length - 1;
    if ((parts[last] + group).length <= most) parts[last] += group;
    else parts.push(group);
  }
  return { parts, small: true };
}

function Box({ x, y, width, tall, name, text }) {
  const { parts, small } = text;
  const top = y - tall / 2;
  const middle = x + width / 2;
  const long = name.length * 8 > width - 8;
  return html`<g class="end">
    <rect x=${x + 0.5} y=${top} width=${width - 1} height=${tall} rx="8" />
    <text class=${`end-name ${long ? "small" : ""}`} x=${middle} y=${top + 18} text-anchor="middle">${name}</text>
    ${parts.map(
      (part, i) => html`<text
        key=${i}
        class=${`end-ip ${small ? "small" : ""}`}
        x=${middle}
        y=${top + 22 + LINE * (i + 1)}
        text-anchor="middle"
        >${part}</text
      >`,
    )}
  </g>`;
}

function told(lines, interfaces) {
  const each = lines.map(({ local, remote, state, missing, share }) => {
    const carries = missing ? "" : `, ${percent(share)}`;
    return `${interfaces.get(local) ?? ""} ${local} to ${remote}: ${state}${carries}`;
  });
  return `Paths. ${each.join(". ")}`;
}
