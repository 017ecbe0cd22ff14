// SPDX-License-Identifier: Apache-2.0
// The frame around the views: header, what is wrong, the view that the address names, keys.

import { AddressesView } from "./addresses.js";
import { askAboutLogin, isCode, logOut, loggedIn, loginWanted, redeemCode } from "./api.js";
import { Banners } from "./banners.js";
import { ConfigurationView } from "./configuration.js";
import { DoctorView } from "./doctor.js";
import { Dialog } from "./dialogs.js";
import { announcement, html, render, useEffect, useRef, useStore } from "./dom.js";
import { start } from "./live.js";
import { LoginView } from "./login.js";
import { OverviewView } from "./overview.js";
import { connection, usePoll } from "./polling.js";
import { Tabs, href, readAddress, route } from "./route.js";
import { SessionView } from "./session.js";
import { SessionsView } from "./sessions.js";
import { ThemeButton } from "./theme.js";

const TABS = [
  ["overview", "Overview"],
  ["sessions", "Sessions"],
  ["addresses", "Addresses"],
  ["configuration", "Config", "uration"], // the rest has no room on a phone
  ["doctor", "Doctor"],
];
const VIEWS = {
  overview: OverviewView,
  sessions: SessionsView,
  session: SessionView,
  addresses: AddressesView,
  configuration: ConfigurationView,
  doctor: DoctorView,
};
const CONNECTION = { connecting: "Connecting", live: "Live", lost: "No connection" };

function Connection() {
  const state = useStore(connection);
  return html`<span class=${`connection ${state}`} title=${`Events of the service: ${CONNECTION[state]}`}>
    <span class="dot" aria-hidden="true"></span><span class="connection-text">${CONNECTION[state]}</span>
  </span>`;
}

function Header({ wanted }) {
  const mayLeave = useStore(loggedIn);
  return html`<header class="top">
    <a class="brand" href=${href("overview")}>
      <img src="web/icon.svg" alt="" width="24" height="24" /> mptcp-pm
    </a>
    ${!wanted && html`<${Tabs} tabs=${TABS} />`}
    <div class="tools">
      ${!wanted && html`<${Connection} />`}
      ${!wanted && mayLeave && html`<button class="plain" onClick=${() => logOut().catch(() => {})}>Log out</button>`}
      <${ThemeButton} />
    </div>
  </header>`;
}

function NotFoundView() {
  return html`<h1>There is no such view</h1>
    <p><a href=${href("overview")}>To the overview</a></p>`;
}

function Inside({ now }) {
  const status = usePoll("v1/status", 5, (event) => event.type === "config" || event.type === "policy");
  const View = VIEWS[now.view] ?? NotFoundView;
  return html`<${Banners} status=${status.data} />
    <${View} key=${`${now.view}/${now.id}`} id=${now.id} query=${now.query} status=${status} />`;
}

function Page({ codeError }) {
  const now = useStore(route);
  const wanted = useStore(loginWanted);
  const told = useStore(announcement);
  const main = useRef();
  const first = useRef(true);
  useEffect(() => {
    const heading = main.current.querySelector("h1");
    document.title = heading ? `${heading.textContent} – mptcp-pm` : "mptcp-pm";
    // A reader who follows a link goes on at the new view, not at the old link.
    if (!first.current && !main.current.contains(document.activeElement)) main.current.focus({ preventScroll: true });
    if (!first.current) window.scrollTo(0, 0);
    first.current = false;
  }, [now.view, now.id, wanted]);
  return html`<a class="skip" href="#main" onClick=${(event) => skip(event, main.current)}>Skip to the content</a>
    <${Header} wanted=${wanted} />
    <main id="main" tabindex="-1" ref=${main}>
      ${wanted ? html`<${LoginView} error=${codeError} />` : html`<${Inside} now=${now} />`}
    </main>
    <${Dialog} />
    <div class="unseen" role="status" aria-live="polite">${told}</div>`;
}

function skip(event, main) {
  event.preventDefault(); // the fragment names the view
  main.focus();
}

// `/` goes to the search field, of whichever view.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea, dialog");
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || typing) return;
  event.preventDefault();
  const field = document.querySelector("input[type=search]");
  if (field) field.focus();
  else location.hash = href("sessions", "", { focus: "search" });
});

// A new address of `mptcp-pm web` in a tab that has the page: only the fragment changes.
window.addEventListener("hashchange", () => isCode() && location.reload());
const codeError = await redeemCode();
readAddress(); // without the code
askAboutLogin();
start();
const place = document.getElementById("page");
place.replaceChildren(); // what is there for those who have no page
render(html`<${Page} codeError=${codeError} />`, place);
