// SPDX-License-Identifier: Apache-2.0
// Plots over the last minutes: lines, or areas that stand on each other, with a legend that tells the values.

import uPlot from "./vendor/uPlot.esm.js";
import { now } from "./clock.js";
import { html, useEffect, useRef, useState, useStore } from "./dom.js";
import { milliseconds, rate } from "./format.js";
import { colour, theme } from "./theme.js";

export const SPAN_S = 300;
const LEAST_S = 60;
// What is plotted: how it is written, what is round in it, and how high an axis is at least.
export const RATE = { show: rate, round: 1 / 8, least: 125 };
export const TIME = { show: milliseconds, round: 1e-3, least: 1e-4 };
const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit" };

// `series`: [{name, hue, values, below, dash}]; `below` are drawn under zero: what is sent, of the same name.
// `times` are seconds since the epoch, ascending. `unit` is RATE or TIME.
export function Chart({ label, times, series, unit, stacked = false, height = 200 }) {
  const { show } = unit;
  const place = useRef();
  const plot = useRef(null);
  const [at, setAt] = useState(null);
  const look = useStore(theme);
  const shape = JSON.stringify([look, stacked, height, series.map((s) => [s.name, s.hue, s.below, s.dash])]);
  const data = [times, ...arrange(series, stacked)];

  useEffect(() => {
    const made = new uPlot(
      options({ series, unit, stacked, height, setAt, width: place.current.clientWidth }),
      data,
      place.current,
    );
    plot.current = made;
    const watch = new ResizeObserver(() => {
      const width = place.current?.clientWidth;
      if (width && width !== made.width) made.setSize({ width, height });
    });
    watch.observe(place.current);
    return () => {
      watch.disconnect();
      made.destroy();
    };
  }, [shape]);
  useEffect(() => plot.current.setData(data), [times, series]);

  const index = at !== null && at < times.length ? at : times.length - 1;
  const value = (s) => (index >= 0 ? s.values[index] : null);
  return html`<div class="chart">
    <div class="plot" ref=${place} role="img" aria-label=${summary(label, series, times.length - 1, show)}></div>
    <ul class="legend">
      ${series
        .filter((s) => !s.below)
        .map((s) => {
          const other = series.find((one) => one.below && one.name === s.name);
          return html`<li key=${s.name}>
            <span class=${`swatch ${s.dash ? "dashed" : ""}`} style=${{ "--swatch": `var(--${s.hue})` }}></span>
            <span>${s.name}</span>
            <span class="legend-values">
              <span class="legend-value">${other && "↓ "}${show(value(s))}</span>
              ${other && html`<span class="legend-value">↑ ${show(value(other))}</span>`}
            </span>
          </li>`;
        })}
      <li class="legend-time">${at !== null && times[index] ? clock(times[index]) : "now"}</li>
    </ul>
  </div>`;
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

function summary(label, series, last, show) {
  const each = series.map((s) => `${s.name} ${s.below ? "sent " : ""}${show(s.values[last] ?? null)}`);
  return `${label}. Now: ${each.join(", ") || "nothing"}`;
}

// Values as they are drawn. Areas: the sum with those before; the last is the outermost, and is drawn first.
function arrange(series, stacked) {
  if (!stacked)
    return series.map((s) => s.values.map((v) => (v === null || v === undefined ? null : s.below ? -v : v)));
  const sums = { true: [], false: [] };
  const drawn = series.map((s) => {
    const sum = sums[Boolean(s.below)];
    return s.values.map((v, i) => {
      if (v === null || v === undefined) return sum[i] === undefined ? null : s.below ? -sum[i] : sum[i];
      sum[i] = (sum[i] ?? 0) + v;
      return s.below ? -sum[i] : sum[i];
    });
  });
  return drawn.reverse();
}

const STEPS = Array.from({ length: 18 }, (_, i) => [1, 2, 5].map((step) => step * 10 ** (i - 3))).flat();

function options({ series, unit, stacked, height, setAt, width }) {
  const line = colour("line");
  const axis = {
    stroke: colour("muted"),
    grid: { stroke: line, width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  const drawn = stacked ? [...series].reverse() : series;
  return {
    width,
    height,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { show: !stacked }, y: false },
    scales: {
      x: { range: (_, low, high) => span(low, high) },
      y: { range: (_, low, high) => range(low, high, unit.least) },
    },
    axes: [
      {
        ...axis,
        size: 26,
        space: 70,
        values: (_, ticks) => ticks.map((t) => new Date(t * 1000).toLocaleTimeString("en-GB", CLOCK)),
        incrs: [15, 30, 60, 120],
      },
      {
        ...axis,
        size: 78,
        space: 34,
        incrs: STEPS.map((step) => step * unit.round),
        values: (_, ticks) => ticks.map((t) => unit.show(Math.abs(t))),
      },
    ],
    series: [
      {},
      ...drawn.map((s) => {
        const own = colour(s.hue);
        return {
          stroke: own,
          width: stacked ? 1 : 1.75,
          fill: stacked ? blend(own, colour("card"), 0.55) : undefined,
          dash: s.dash ? [6, 4] : undefined,
          points: { show: false },
          spanGaps: false,
        };
      }),
    ],
    hooks: { setCursor: [(u) => setAt(u.cursor.idx ?? null)] },
  };
}

// As much as there is, a minute at least.
function span(low, high) {
  const end = high ?? now() / 1000;
  return [Math.max(end - SPAN_S, Math.min(low ?? end, end - LEAST_S)), end];
}

function range(low, high, least) {
  const top = Math.max(high ?? 0, 0);
  const bottom = Math.min(low ?? 0, 0);
  if (top - bottom < least) return [bottom, bottom + least];
  return [bottom * 1.1, top * 1.1];
}

// Areas must hide what is behind them: opaque, in a lighter colour.
function blend(colour, ground, share) {
  const [a, b] = [parse(colour), parse(ground)];
  return `rgb(${a.map((v, i) => Math.round(v * share + b[i] * (1 - share))).join(",")})`;
}

function parse(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}
