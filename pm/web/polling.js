// SPDX-License-Identifier: Apache-2.0
// What keeps figures current: each thing that is in view is asked for again and again.
//
// Requests go in lanes. What is asked for is asked for again only once the answer is there, and a lane has room
// for a few at a time: a slow answer holds up neither others of its kind nor those of another lane. What a lane
// has out of view is asked for by turns, one in a second. Nothing is asked while the page is hidden. Where the
// service does not answer, one request at a time tries, and the waits grow.

import { Problem, get, loginWanted } from "./api.js";
import { Store, announcement, useEffect, useRef, useState } from "./dom.js";

const GAP_MS = 1000; // between two starts of the same request
const TOGETHER = 4; // a browser opens six connections to one host: the events have one, an action needs one
const RETRY_MAX_MS = 15_000;
const LANES = {
  own: { room: 1, gapMs: 0 },
  series: { room: 2, gapMs: 90 }, // there may be hundreds, and each costs the service some milliseconds
};

// "connecting", "live", or "lost".
export const connection = new Store("connecting");

const sources = new Set();
const lanes = new Map(); // by name: {room, gapMs, running, started, turn}
let running = 0;
let started = -Infinity;
let failures = 0;
let failedAt = -Infinity;
let answeredAt = -Infinity;
let waitMs = 0; // after a failure
let timer = 0;

class Source {
  constructor(path, lane, tell) {
    Object.assign(this, { path, lane, tell, due: 0, started: -Infinity, running: null });
  }

  // `wants` says whether an event is a reason to look again at once.
  hear(event) {
    if (this.wants?.(event)) this.due = Math.min(this.due, this.started + GAP_MS);
  }

  // When it may start, at the earliest.
  at() {
    const { lane } = this;
    if (this.running || lane.running >= lane.room) return Infinity;
    return Math.max(this.due, lane.started + lane.gapMs, this.inView ? 0 : lane.turn + GAP_MS);
  }

  before(other) {
    if (this.inView !== other.inView) return this.inView;
    return this.due < other.due;
  }
}

export const backoff = (times) =>
  Math.min(RETRY_MAX_MS, GAP_MS * 2 ** Math.min(times, 6)) * (0.8 + Math.random() * 0.4);

function laneOf(name, path) {
  const key = name === "own" ? path : name;
  if (!lanes.has(key)) lanes.set(key, { ...LANES[name], running: 0, started: -Infinity, turn: -Infinity });
  return lanes.get(key);
}

export function schedule() {
  clearTimeout(timer);
  if (document.hidden || loginWanted.value) return;
  while (running < (failures ? 1 : TOGETHER)) {
    const now = performance.now();
    const { source, at } = choose(now);
    if (!source) return; // until an answer makes room
    if (at > now) {
      timer = setTimeout(schedule, at - now);
      return;
    }
    poll(source);
  }
}

// Of those that may start now the first in order, else the one that may start first.
function choose(now) {
  let found = { source: null, at: Infinity };
  const earliest = failures ? started + waitMs : 0;
  for (const source of sources) {
    const at = Math.max(source.at(), earliest);
    const better = at <= now && found.at <= now ? source.before(found.source) : at < found.at;
    if (better) found = { source, at };
  }
  return found;
}

async function poll(source) {
  const { lane } = source;
  const mine = new AbortController();
  const began = performance.now();
  source.running = mine;
  source.started = lane.started = started = began;
  source.due = began + source.everyMs;
  if (!source.inView) lane.turn = began;
  lane.running += 1;
  running += 1;
  try {
    const data = await get(source.path, mine.signal);
    failures = 0;
    answeredAt = performance.now();
    if (sources.has(source)) source.tell({ data, error: null });
    if (connection.value === "lost") found();
  } catch (error) {
    if (!mine.signal.aborted) failed(source, error, began);
  } finally {
    source.running = null;
    lane.running -= 1;
    running -= 1;
    schedule();
  }
}

function failed(source, error, began) {
  if (!(error instanceof Problem)) console.error(error);
  // Where others were answered meanwhile, it is this one alone that takes too long.
  if ((error.status === 0 || error.status >= 502) && answeredAt < began) {
    // Those that were on their way together fail together.
    if (began >= failedAt) {
      failedAt = performance.now();
      waitMs = backoff(failures);
      failures += 1;
    }
    source.due = 0;
    lost();
  }
  if (error instanceof Problem && sources.has(source)) source.tell({ error });
}

export function lost() {
  if (connection.value !== "lost") announcement.set("The connection to the service is lost.");
  connection.set("lost");
}

export function found() {
  if (connection.value === "lost") announcement.set("Connected again.");
  failures = 0;
  connection.set("live");
  refresh();
}

// Look again at everything, after an action of the user.
export function refresh() {
  for (const source of sources) source.due = 0;
  schedule();
}

export function pause() {
  clearTimeout(timer);
}

// An event is a reason to look again at what it concerns.
export function hear(event) {
  for (const source of sources) source.hear(event);
  schedule();
}

// The newest answer of `path`, asked for every `everyS` seconds, and sooner where `wants` likes an event.
// {data, error}: after an error the last data stay. `lane`: one that many share; out of view it takes turns.
export function usePoll(path, everyS, wants, { lane = "own", inView = true } = {}) {
  const [state, setState] = useState({ path, data: null, error: null });
  const mine = useRef(null);
  useEffect(() => {
    if (!path) return undefined;
    const tell = (news) => setState((old) => ({ path, data: old.path === path ? old.data : null, ...news }));
    const source = new Source(path, laneOf(lane, path), tell);
    mine.current = source;
    sources.add(source);
    return () => {
      sources.delete(source);
      source.running?.abort();
      if (lane === "own") lanes.delete(path);
      schedule();
    };
  }, [path, lane]);
  useEffect(() => {
    const source = mine.current;
    if (!path || !source) return;
    const everyMs = everyS * 1000;
    if (everyMs !== source.everyMs && source.due > source.started) source.due = source.started + everyMs;
    Object.assign(source, { wants, inView, everyMs });
    schedule();
  }, [path, lane, everyS, wants, inView]);
  return state.path === path ? state : { data: null, error: null };
}
