// SPDX-License-Identifier: Apache-2.0
// What keeps the page current: one stream of events, and polls of which at most one starts in a second.
//
// Nothing is asked while the page is hidden. Where the service does not answer, the waits grow.

import { Problem, get, loginWanted, problem } from "./api.js";
import { Store, announcement, useEffect, useState } from "./dom.js";

const GAP_MS = 1000;
const RETRY_MAX_MS = 15_000;
const ANSWER_MS = 10_000;
const SILENCE_MS = 40_000; // the service says something every 15 s

// "connecting", "live", or "lost".
export const connection = new Store("connecting");

const sources = new Set();
let lastPoll = 0;
let polling = false;
let timer = 0;
let failures = 0;

class Source {
  constructor(path, everyMs, wants, tell) {
    Object.assign(this, { path, everyMs, wants, tell, due: 0, fresh: true });
  }

  // `wants` says whether an event is a reason to look again at once.
  hear(event) {
    if (this.wants?.(event)) this.due = Math.min(this.due, performance.now());
  }
}

const backoff = (times) => Math.min(RETRY_MAX_MS, GAP_MS * 2 ** Math.min(times, 6)) * (0.8 + Math.random() * 0.4);

function schedule() {
  clearTimeout(timer);
  if (polling || document.hidden || loginWanted.value || sources.size === 0) return;
  const now = performance.now();
  const next = mostUrgent();
  const gap = failures ? backoff(failures - 1) : next.fresh ? 0 : GAP_MS;
  timer = setTimeout(poll, Math.max(0, lastPoll + gap - now, next.due - now));
}

function mostUrgent() {
  let best = null;
  for (const source of sources) {
    if (!best || source.fresh > best.fresh || (source.fresh === best.fresh && source.due < best.due)) best = source;
  }
  return best;
}

async function poll() {
  const source = mostUrgent();
  polling = true;
  lastPoll = performance.now();
  source.due = lastPoll + source.everyMs;
  source.fresh = false;
  try {
    const data = await get(source.path);
    failures = 0;
    if (sources.has(source)) source.tell({ data, error: null });
    if (connection.value === "lost") found();
  } catch (error) {
    if (error.status === 0 || error.status >= 502) {
      failures += 1;
      source.due = 0;
      lost();
    }
    if (error instanceof Problem && sources.has(source)) source.tell({ error });
    else if (!(error instanceof Problem)) console.error(error);
  } finally {
    polling = false;
    schedule();
  }
}

function lost() {
  if (connection.value !== "lost") announcement.set("The connection to the service is lost.");
  connection.set("lost");
}

function found() {
  if (connection.value === "lost") announcement.set("Connected again.");
  connection.set("live");
  failures = 0;
  for (const source of sources) source.due = 0;
  schedule();
  follow();
}

// The newest answer of `path`, asked for every `everyS` seconds, and sooner where `wants` likes an event.
// {data, error}: after an error the last data stay.
export function usePoll(path, everyS, wants) {
  const [state, setState] = useState({ path, data: null, error: null });
  useEffect(() => {
    if (!path) return undefined;
    const tell = (news) => setState((old) => ({ path, data: old.path === path ? old.data : null, ...news }));
    const source = new Source(path, everyS * 1000, wants, tell);
    sources.add(source);
    schedule();
    return () => {
      sources.delete(source);
      schedule();
    };
  }, [path, everyS]);
  return state.path === path ? state : { data: null, error: null };
}

// Look again at everything, after an action of the user.
export function refresh() {
  for (const source of sources) source.due = 0;
  schedule();
}

// Events

const listeners = new Set();
let stream = null;
let streamFailures = 0;
let streamTimer = 0;
let lastId = "";

export function useEvents(listener) {
  useEffect(() => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, [listener]);
}

function deliver(event) {
  for (const source of sources) source.hear(event);
  for (const listener of [...listeners]) listener(event);
  schedule();
}

async function follow() {
  clearTimeout(streamTimer);
  if (stream || document.hidden || loginWanted.value) return;
  const mine = new AbortController();
  stream = mine;
  let watchdog = 0;
  const awake = (ms) => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => mine.abort(), ms);
  };
  try {
    awake(ANSWER_MS);
    const headers = lastId ? { "Last-Event-ID": lastId } : {};
    const response = await fetch("v1/events", { headers, cache: "no-store", signal: mine.signal });
    if (!response.ok) throw await problem(response);
    streamFailures = 0;
    found();
    await read(response.body.getReader(), () => awake(SILENCE_MS));
    throw new Error("the stream ended");
  } catch (error) {
    // A stream that this page ended itself, as hidden pages do, is no loss. Neither is one that is refused
    // because there are too many readers: then the polls have to do.
    if (stream === mine && !(error instanceof Problem)) lost();
  } finally {
    clearTimeout(watchdog);
    if (stream === mine) {
      stream = null;
      streamFailures += 1;
      if (!document.hidden && !loginWanted.value) streamTimer = setTimeout(follow, backoff(streamFailures - 1));
      schedule();
    }
  }
}

async function read(reader, awake) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    awake();
    const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) understand(block);
  }
}

function understand(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  if (fields.id) lastId = fields.id;
  if (fields.event === "lost") {
    refresh();
    deliver({ type: "lost" });
  } else if (fields.data) {
    deliver({ id: fields.id, ...JSON.parse(fields.data) });
  }
}

function leave() {
  const old = stream;
  stream = null;
  clearTimeout(streamTimer);
  clearTimeout(timer);
  old?.abort();
}

export function start() {
  const again = () => {
    if (document.hidden || loginWanted.value) {
      leave();
    } else {
      refresh();
      follow();
    }
  };
  document.addEventListener("visibilitychange", again);
  window.addEventListener("online", again);
  loginWanted.watchers.add(again);
  again();
}
