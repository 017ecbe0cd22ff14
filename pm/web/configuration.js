// SPDX-License-Identifier: Apache-2.0
// The configuration in force, what is odd about it, and what the last reload said.

import { call } from "./api.js";
import { problemText } from "./banners.js";
import { ask } from "./dialogs.js";
import { Badge, Empty, Notice, Waiting, html, useEffect, useState } from "./dom.js";
import { dateAndClock, plural } from "./format.js";
import { usePoll } from "./polling.js";

export function ConfigurationView({ status }) {
  const { data, error } = usePoll("v1/configuration", 15, (event) => event.type === "config");
  return html`<div class="section-head">
      <h1>Configuration</h1>
      <button onClick=${askToReload}>Reload …</button>
    </div>
    ${status.data ? html`<${File} config=${status.data.config} />` : html`<${Waiting} error=${status.error} />`}
    <section aria-labelledby="in-force">
      <h2 id="in-force">In force</h2>
      ${data ? html`<div class="card"><${Tree} value=${data.configuration} /></div>` : html`<${Waiting} error=${error} />`}
    </section>`;
}

function askToReload() {
  ask({
    title: "Reload the configuration file?",
    text: "Subflows that it does not want any more are closed, and those that it wants are opened. A bad file changes nothing.",
    action: "Reload",
    form: Prospect,
    run: () => call("POST", "v1/reload"),
  });
}

// What the reload would do, asked while the question is open.
function Prospect() {
  const [{ data, error }, setAnswer] = useState({});
  useEffect(() => {
    call("POST", "v1/reload/dry-run").then(
      (found) => setAnswer({ data: found }),
      (problem) => setAnswer({ error: problem }),
    );
  }, []);
  if (error) return html`<${Notice} tone="bad" title=${error.title}>${error.message}<//>`;
  if (!data) return html`<p role="status">Looking at what it would change …</p>`;
  return html`<p role="status">
    ${
      data.changed.length === 0
        ? "No session would be changed."
        : `It would open ${plural(data.opens, "subflow")} and close ${plural(data.closes, "subflow")}, in ${plural(data.changed.length, "session")}.`
    }
  </p>`;
}

function File({ config }) {
  const { last_reload: reload, warnings, sources } = config;
  return html`<dl class="facts-grid card">
      <div><dt>File</dt><dd><code>${config.path}</code></dd></div>
      <div><dt>SHA-256</dt><dd><code title=${config.digest}>${config.digest.slice(0, 16)}…</code></dd></div>
      <div>
        <dt>Last loaded</dt>
        <dd>
          ${dateAndClock(reload.time)} <${Badge} tone=${reload.ok ? "good" : "bad"}>${reload.ok ? "well" : "refused"}<//>
        </dd>
      </div>
      ${sources.map((one) => html`<div key=${one.path}><dt>C file in force</dt><dd><code>${one.path}</code></dd></div>`)}
    </dl>
    ${
      reload.problems.length > 0 &&
      html`<section aria-labelledby="problems">
      <h2 id="problems">Why the file was refused</h2>
      <ul class="problems card">
        ${reload.problems.map((one) => html`<li key=${problemText(one)} class="bad-text">${problemText(one)}</li>`)}
      </ul>
    </section>`
    }
    <section aria-labelledby="warnings">
      <h2 id="warnings">Warnings</h2>
      ${
        warnings.length === 0
          ? html`<${Empty}>There are none.<//>`
          : html`<ul class="problems card">
            ${warnings.map((one) => html`<li key=${problemText(one)}>${problemText(one)}</li>`)}
          </ul>`
      }
    </section>`;
}

function isLeaf(value) {
  if (value === null || typeof value !== "object") return true;
  if (Array.isArray(value)) return value.every((one) => typeof one !== "object");
  return Object.keys(value).length === 0;
}

// A document as nested lists of keys and values: a value stands beside its key, what has parts below it.
function Tree({ value }) {
  if (value === null) return html`<span class="quiet-text">not set</span>`;
  if (typeof value !== "object") return html`<code>${String(value)}</code>`;
  if (Array.isArray(value)) {
    if (value.length === 0) return html`<span class="quiet-text">none</span>`;
    if (isLeaf(value)) return html`<code>${value.join(", ")}</code>`;
    return html`<ol class="tree">
      ${value.map((one, i) => html`<li key=${i}><${Tree} value=${one} /></li>`)}
    </ol>`;
  }
  if (isLeaf(value)) return html`<span class="quiet-text">nothing set</span>`;
  return html`<dl class="tree">
    ${Object.entries(value).map(
      ([key, one]) => html`<div key=${key} class=${isLeaf(one) ? "leaf" : "branch"}>
        <dt>${key}</dt>
        <dd><${Tree} value=${one} /></dd>
      </div>`,
    )}
  </dl>`;
}
