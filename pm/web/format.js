// SPDX-License-Identifier: Apache-2.0
// Numbers and times in words that are short and keep their width.

const NONE = "–";

function scaled(value, units, digits = 3) {
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const places = unit === 0 ? 0 : Math.max(0, digits - 1 - Math.floor(Math.log10(Math.max(value, 1))));
  return `${value.toFixed(Math.min(places, 2))} ${units[unit]}`;
}

// `value` in bytes per second; shown in bits, as links are sold.
export function rate(value) {
  if (value === null || value === undefined) return NONE;
  return scaled(Math.max(0, value) * 8, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
}

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  return scaled(value, ["B", "kB", "MB", "GB", "TB", "PB"]);
}

export function count(value) {
  return value === null || value === undefined ? NONE : value.toLocaleString("en");
}

// `value` in seconds.
export function milliseconds(value) {
  if (value === null || value === undefined) return NONE;
  const ms = value * 1000;
  return `${ms < 9.995 ? ms.toFixed(2) : ms < 99.95 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
}

export function percent(value) {
  if (value === null || value === undefined) return NONE;
  return value > 0 && value < 0.01 ? "< 1 %" : `${Math.round(value * 100)} %`;
}

// `seconds` as `4 s`, `3 min`, `2 h 5 min`, `3 d 4 h`.
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  const [large, small, units] = s < 86400 ? [3600, 60, ["h", "min"]] : [86400, 3600, ["d", "h"]];
  const rest = Math.floor((s % large) / small);
  return `${Math.floor(s / large)} ${units[0]}${rest ? ` ${rest} ${units[1]}` : ""}`;
}

// An RFC 3339 time as the clock here shows it.
export function clock(text) {
  return new Date(text).toLocaleTimeString("en-GB", { hour12: false });
}

export function dateAndClock(text) {
  return new Date(text).toLocaleString("en-GB", { hour12: false });
}

// A port of 0 is not known yet.
export function endpoint({ ip, port }) {
  if (!port) return ip;
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function words(text) {
  return text.replaceAll("_", " ");
}
