// SPDX-License-Identifier: Apache-2.0
// One stream of events, read with fetch(): it makes polls due, and what listens hears of it at once.

import { Problem, askAboutLogin, loginWanted, problem } from "./api.js";
import { learn, learnMoment } from "./clock.js";
import { useEffect } from "./dom.js";
import { backoff, connection, found, hear, lost, pause, refresh, schedule } from "./polling.js";

const ANSWER_MS = 10_000;
const SILENCE_MS = 40_000; // the service says something every 15 s

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
  hear(event);
  for (const listener of [...listeners]) listener(event);
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
    const sent = performance.now();
    const headers = lastId ? { "Last-Event-ID": lastId } : {};
    const response = await fetch("v1/events", { headers, cache: "no-store", signal: mine.signal });
    learn(response, sent);
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
    const event = { id: fields.id, ...JSON.parse(fields.data) };
    learnMoment(event.time);
    deliver(event);
  }
}

function leave() {
  const old = stream;
  stream = null;
  clearTimeout(streamTimer);
  pause();
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
  const back = () => loginWanted.value && !document.hidden && askAboutLogin(); // another tab may have logged in
  document.addEventListener("visibilitychange", again);
  document.addEventListener("visibilitychange", back);
  window.addEventListener("focus", back);
  window.addEventListener("online", again);
  loginWanted.watchers.add(again);
  // A poll got through: the stream may, too.
  connection.watchers.add((state) => state === "live" && follow());
  again();
}
