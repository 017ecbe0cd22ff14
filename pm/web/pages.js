// SPDX-License-Identifier: Apache-2.0
// The session table, fetched page after page by cursor as far as somebody scrolls.

import { get } from "./api.js";
import { Store } from "./dom.js";

const PAGE = 200;
const GATHER_MS = 50;

export class Pages {
  constructor(query) {
    this.query = query;
    this.changes = new Store(0);
    this.reset();
  }

  reset() {
    this.loading?.abort();
    this.loading = null;
    this.pages = []; // {cursor, rows}
    this.next = null; // cursor of the page after the last one
    this.complete = false;
    this.error = null;
    this.gone = new Set();
    this.rates = new Map(); // token: {bytes, at, rate}
    this.changed();
  }

  changed() {
    this.rows = [];
    this.owner = []; // page of each row
    const seen = new Set();
    this.pages.forEach((page, number) => {
      for (const row of page.rows) {
        if (seen.has(row.token)) continue;
        seen.add(row.token);
        this.rows.push(row);
        this.owner.push(number);
      }
    });
    this.changes.set(this.changes.value + 1);
  }

  path(cursor) {
    const query = new URLSearchParams({ ...this.query, limit: PAGE });
    if (cursor) query.set("cursor", cursor);
    return `v1/sessions?${query}`;
  }

  // Fetch until row `index` is there. After an error nothing more is, until `reset`.
  async need(index) {
    if (this.loading || this.error || this.complete || index < this.rows.length) return;
    const mine = new AbortController();
    this.loading = mine;
    try {
      while (!this.complete && index >= this.rows.length) {
        const cursor = this.pages.length ? this.next : null;
        const document = await get(this.path(cursor), mine.signal);
        if (this.loading !== mine) return;
        this.error = null;
        this.pages.push({ cursor, rows: document.sessions });
        this.end(document.next);
        this.measure(document.sessions);
        this.changed();
      }
    } catch (error) {
      if (this.loading !== mine) return;
      this.error = error;
      this.changed();
    } finally {
      if (this.loading === mine) this.loading = null;
    }
  }

  end(next) {
    this.next = next;
    this.complete = next === null;
  }

  // A newer answer for page `number`. Sessions that have closed make room: what is of the next page stays there.
  renew(number, document) {
    const page = this.pages[number];
    if (!page) return;
    const following = this.pages[number + 1];
    let rows = document.sessions;
    if (following) {
      const theirs = new Set(following.rows.map((row) => row.token));
      const cut = rows.findIndex((row) => theirs.has(row.token));
      if (cut >= 0) rows = rows.slice(0, cut);
    } else {
      this.end(document.next);
    }
    page.rows = rows;
    this.error = null;
    this.measure(rows);
    this.changed();
  }

  // A session has closed. Thousands may at once: they leave together.
  remove(token) {
    if (this.gone.size === 0) setTimeout(() => this.leave(), GATHER_MS);
    this.gone.add(token);
  }

  leave() {
    for (const page of this.pages) page.rows = page.rows.filter((row) => !this.gone.has(row.token));
    for (const token of this.gone) this.rates.delete(token);
    this.gone.clear();
    this.changed();
  }

  // Bytes per second, from two answers.
  measure(rows) {
    for (const row of rows) {
      const at = Date.parse(row.sampled_at) / 1000;
      const bytes = volume(row);
      const old = this.rates.get(row.token);
      if (old && at <= old.at) continue;
      const rate = old && at - old.at < 10 ? Math.max(0, (bytes - old.bytes) / (at - old.at)) : null;
      this.rates.set(row.token, { bytes, at, rate });
    }
  }
}

export function volume(session) {
  return session.subflows.reduce((sum, one) => sum + (one.bytes_sent ?? 0) + (one.bytes_received ?? 0), 0);
}
