// SPDX-License-Identifier: Apache-2.0
// Minutes of samples: those that the service kept, and after them those that this page saw.

import { SPAN_S } from "./chart.js";
import { learnMoment, now } from "./clock.js";
import { useRef } from "./dom.js";

const KEEP = 700; // samples of one line; one a second for SPAN_S, and what the service has more

// Lines by key, each an ascending list of [seconds since the epoch, value].
export class Minutes {
  constructor() {
    this.lines = new Map();
  }

  add(key, time, value) {
    let line = this.lines.get(key);
    if (!line) this.lines.set(key, (line = []));
    if (line.length && line[line.length - 1][0] >= time) return;
    line.push([time, value]);
    if (line.length > KEEP) line.splice(0, line.length - KEEP);
  }

  // Whether there is anything of the last minutes.
  recent(key) {
    const [time] = this.lines.get(key)?.at(-1) ?? [0];
    if (time >= now() / 1000 - SPAN_S) return true;
    this.lines.delete(key);
    return false;
  }

  // Take what the service has (`document` of a series endpoint); `keyOf` names a line, or null: not this one.
  merge(document, keyOf) {
    if (document.end === null) return; // nothing was sampled yet
    learnMoment(document.end);
    const end = Date.parse(document.end) / 1000;
    for (const one of document.series) {
      const key = keyOf(one);
      if (key === null) continue;
      const kept = this.lines.get(key) ?? [];
      const theirs = one.values.map((value, i) => [end + document.times[i], value]);
      const last = theirs.length ? theirs[theirs.length - 1][0] : -Infinity;
      this.lines.set(key, [...theirs, ...kept.filter(([time]) => time > last + 0.5)]);
    }
  }

  // {times, values by key} on one axis of whole seconds, for the last minutes.
  table(keys) {
    const begin = now() / 1000 - SPAN_S;
    const seconds = new Set();
    const columns = new Map();
    for (const key of keys) {
      const column = new Map();
      for (const [time, value] of this.lines.get(key) ?? []) {
        if (time < begin) continue;
        const second = Math.round(time);
        seconds.add(second);
        column.set(second, value);
      }
      columns.set(key, column);
    }
    const times = [...seconds].sort((a, b) => a - b);
    return {
      times,
      values: new Map(keys.map((key) => [key, times.map((t, i) => pick(columns.get(key), t, times, i))])),
    };
  }
}

// The page looks once a second, more or less: a second without a sample between two with one is no gap.
function pick(column, time, times, i) {
  if (column.has(time)) return column.get(time);
  const before = times[i - 1];
  const after = times[i + 1];
  if (before === undefined || after === undefined || after - before > 6) return null;
  return column.get(before) ?? column.get(after) ?? null;
}

export function useMinutes() {
  const minutes = useRef(null);
  minutes.current ??= new Minutes();
  return minutes.current;
}
