// SPDX-License-Identifier: Apache-2.0
// All sessions: filters in the address, as many rows as there are, of which only those in view exist.

import { Badge, Notice, Waiting, announcement, html, useStore } from "./dom.js";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./dom.js";
import { Filters } from "./filters.js";
import { bytes, count, duration, endpoint, milliseconds, plural, rate } from "./format.js";
import { lacks, onePath, paths } from "./lacks.js";
import { useEvents } from "./live.js";
import { Pages, volume } from "./pages.js";
import { connection, usePoll } from "./polling.js";
import { href } from "./route.js";
import { useWindow } from "./window.js";

const FILTERS = ["search", "policy", "state", "cgroup"];
const COLUMNS = ["Session", "Policy", "Cgroup", "Peer", "Paths", "Throughput", "RTT", "Volume", "Age", "Why"];
const places = new Map(); // of a list that was left, by its filters: {top, active}

export function SessionsView({ query, status }) {
  const wanted = Object.fromEntries(
    FILTERS.map((name) => [name, query.get(name) ?? ""]).filter(([, value]) => value),
  );
  const key = JSON.stringify(wanted);
  const pages = useMemo(() => new Pages(wanted), [key]);
  useEffect(() => () => pages.reset(), [pages]);
  const total = Object.keys(wanted).length ? null : (status.data?.sessions ?? null);
  const policies = usePoll("v1/policies", 30, (event) => event.type === "policy" || event.type === "config").data;
  const addresses = usePoll("v1/addresses", 30, (event) => event.type === "address").data;
  const known = useMemo(
    () => ({
      policies: new Map((policies?.policies ?? []).map((policy) => [policy.name, policy])),
      addresses: addresses?.addresses ?? null,
    }),
    [policies, addresses],
  );
  return html`<h1>Sessions</h1>
    <${Filters} wanted=${wanted} focus=${query.get("focus") === "search"} policies=${known.policies} />
    <${List} key=${key} name=${key} pages=${pages} total=${total} known=${known} />`;
}

function List({ name, pages, total, known: about }) {
  const version = useStore(pages.changes);
  const [active, setActive] = useState(places.get(name)?.active ?? 0);
  const rows = pages.rows;
  const known = pages.complete ? rows.length : Math.max(rows.length + 1, total ?? 0);
  const grid = useRef();
  const view = useWindow(grid, known);
  usePlace(name, grid, active, known * view.height, (top) => pages.need(Math.ceil(top / view.height)), pages.complete);
  const from = pages.owner[view.first] ?? pages.pages.length - 1;
  const to = pages.owner[Math.min(view.last, rows.length - 1)] ?? from;

  useEffect(() => void pages.need(view.last), [pages, view.last, version]);
  useRenewed(pages, view.calm ? from : null, from === to ? 1 : 2);
  useRenewed(pages, view.calm && to !== from ? to : null, 2);
  useRestart(pages);
  useEvents(
    useMemo(
      () => (event) => {
        if (event.type === "session" && event.action === "closed") pages.remove(event.token);
        else if (event.type === "lost") pages.reset();
      },
      [pages],
    ),
  );
  const said = pages.complete
    ? plural(rows.length, "session")
    : total === null
      ? "more sessions"
      : plural(total, "session");
  useEffect(() => announcement.set(pages.complete ? said : ""), [pages.complete]);

  const move = (to_) => {
    const next = Math.max(0, Math.min(known - 1, to_));
    setActive(next);
    view.show(next);
  };
  const keys = (event) => {
    const page = Math.max(1, view.fit - 1);
    const steps = {
      ArrowDown: active + 1,
      ArrowUp: active - 1,
      PageDown: active + page,
      PageUp: active - page,
      Home: 0,
      End: known - 1,
    };
    if (event.key in steps) {
      event.preventDefault();
      move(steps[event.key]);
    } else if (event.key === "Enter" && rows[active]) {
      location.hash = href("session", rows[active].token);
    }
  };
  if (pages.error && rows.length === 0) {
    if (pages.error.status === 0) return html`<${Waiting} />`;
    return html`<${Waiting} error=${pages.error} /> <button onClick=${() => pages.reset()}>Try again</button>`;
  }
  if (pages.complete && rows.length === 0)
    return html`<p class="empty" role="status">There is no such session now.</p>`;
  const shown = [];
  for (let i = view.first; i <= Math.min(view.last, known - 1); i += 1) shown.push(i);
  return html`
    ${
      pages.error &&
      pages.error.status !== 0 &&
      html`<${Notice} tone="warn" title=${pages.error.title}>
      ${pages.error.message} <button class="plain" onClick=${() => pages.reset()}>Try again</button>
    <//>`
    }
    <p class="fine">
      ${pages.complete ? said : total === null ? `${count(rows.length)} sessions so far, scroll for more` : said}
    </p>
    <div
      class="grid"
      role="grid"
      tabindex="0"
      ref=${grid}
      aria-label="Sessions"
      aria-rowcount=${pages.complete || total !== null ? known + 1 : -1}
      aria-colcount=${COLUMNS.length}
      aria-activedescendant=${rows[active] && shown.includes(active) ? `row-${active}` : undefined}
      onKeyDown=${keys}
    >
      <div role="rowgroup" class="grid-head">
        <div role="row" aria-rowindex="1" class="grid-row">
          ${COLUMNS.map((name) => html`<span role="columnheader" key=${name} class=${`c-${name.toLowerCase()}`}>${name}</span>`)}
        </div>
      </div>
      <div role="rowgroup" class="grid-body" style=${{ height: `${known * view.height}px` }}>
        ${shown.map(
          (i) => html`<${Row}
            key=${rows[i]?.token ?? i}
            index=${i}
            session=${rows[i]}
            about=${about}
            measured=${pages.rates.get(rows[i]?.token)?.rate}
            top=${i * view.height}
            active=${i === active}
            choose=${setActive}
          />`,
        )}
      </div>
    </div>
    <p class="fine keys"><kbd>/</kbd> search, <kbd>↑</kbd> <kbd>↓</kbd> move, <kbd>Enter</kbd> open</p>`;
}

// Who comes back to the list is where it was left, once as many rows are known: `need` asks for those down to there.
function usePlace(name, grid, active, height, need, complete) {
  const wanted = useRef(places.get(name)?.top ?? 0);
  const now = useRef({});
  useLayoutEffect(() => {
    const element = grid.current;
    now.current = { element, active };
    if (!element || !wanted.current) return;
    const bottom = wanted.current + element.clientHeight;
    if (height < bottom && !complete) return void need(bottom);
    element.scrollTop = wanted.current;
    wanted.current = 0;
  });
  useLayoutEffect(
    () => () => {
      const { element, active: last } = now.current;
      if (element) places.set(name, { top: wanted.current || element.scrollTop, active: last });
    },
    [],
  );
}

// Page `number` of those in view is asked for again and again.
function useRenewed(pages, number, everyS) {
  const path = number !== null && pages.pages[number] ? pages.path(pages.pages[number].cursor) : null;
  const wants = useMemo(() => (event) => event.type === "session" || event.type === "subflow", []);
  const { data, error } = usePoll(path, everyS, wants);
  useEffect(() => {
    if (data) pages.renew(number, data);
  }, [data]);
  useEffect(() => {
    if (error?.status === 410 && pages.pages.length > 1) pages.reset(); // a cursor of before a restart
  }, [error]);
}

// A new process of the service numbers its sessions anew: what was fetched before is of no use.
function useRestart(pages) {
  const state = useStore(connection);
  const before = useRef(state);
  useEffect(() => {
    if (before.current === "lost" && state === "live") pages.reset();
    before.current = state;
  }, [state]);
}

function Row({ index, session, about, measured, top, active, choose }) {
  const place = { transform: `translateY(${top}px)` };
  const names = `grid-row ${active ? "active" : ""} ${index % 2 ? "odd" : ""}`;
  if (!session) {
    return html`<div role="row" class=${names} style=${place} aria-rowindex=${index + 2} aria-busy="true">
      <span role="gridcell" class="c-session">…</span>
    </div>`;
  }
  const found = lacks(session);
  const carrying = session.subflows.filter((one) => one.state === "established" && !one.backup && !one.peer_backup);
  const rtts = carrying.map((one) => one.rtt_s).filter((rtt) => rtt !== null);
  const open = (event) => {
    choose(index);
    const marks = !getSelection().isCollapsed; // text, to copy it
    if (!marks && !event.target.closest("a")) location.hash = href("session", session.token);
  };
  return html`<div role="row" id=${`row-${index}`} class=${names} style=${place} aria-rowindex=${index + 2} onClick=${open}>
    <span role="gridcell" class="c-session">
      <a href=${href("session", session.token)} tabindex="-1"><code>${session.token}</code></a>
      ${session.state !== "established" && html` <${Badge}>${session.state}<//>`}
    </span>
    <span role="gridcell" class="c-policy" title=${session.policy ?? ""}>${session.policy ?? "–"}</span>
    <span role="gridcell" class="c-cgroup" title=${session.cgroup ?? ""}><bdi>${session.cgroup ?? "–"}</bdi></span>
    <span role="gridcell" class="c-peer" title=${endpoint(peer(session))}>${endpoint(peer(session))}</span>
    <span role="gridcell" class="c-paths">
      ${paths(session)
        .slice(0, 12)
        .map(
          (mark, i) =>
            html`<i key=${i} class=${`mark ${mark.tone} ${mark.backup ? "backup" : ""}`} title=${mark.title}></i>`,
        )}
      <span class="unseen">${plural(session.subflows.length, "subflow")}</span>
    </span>
    <span role="gridcell" class="c-throughput n">${rate(measured)}</span>
    <span role="gridcell" class="c-rtt n">${milliseconds(rtts.length ? Math.min(...rtts) : null)}</span>
    <span role="gridcell" class="c-volume n">${bytes(volume(session))}</span>
    <span role="gridcell" class="c-age n">${duration(session.age_s)}</span>
    <span role="gridcell" class="c-why"><${Why} found=${found} session=${session} about=${about} /></span>
  </div>`;
}

function peer(session) {
  const first = session.subflows.find((one) => one.origin === "initial") ?? session.subflows[0];
  return first?.remote ?? session.remote_addresses[0];
}

function Why({ found, session, about }) {
  if (found.length > 0) {
    const [first, ...more] = found;
    return html`<span class=${`${first.tone}-text`} title=${found.map((one) => one.text).join("\n")}>${first.text}</span>
      ${more.length > 0 && html` <span class="more">+${more.length}</span>`}`;
  }
  const number = session.subflows.length;
  if (number > 1) return html`<span class="quiet-text">${number} paths</span>`;
  const reason = onePath(session, about.policies.get(session.policy), about.addresses);
  if (reason) return html`<span class="quiet-text" title=${reason}>${reason}</span>`;
  return html`<a href=${href("session", session.token, { part: "why" })} tabindex="-1">one path: why?</a>`;
}
