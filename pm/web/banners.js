// SPDX-License-Identifier: Apache-2.0
// What is wrong with the service itself: on top of every view, until it is right again.

import { Notice, html, useState, useStore } from "./dom.js";
import { connection } from "./polling.js";
import { href } from "./route.js";
import { plural } from "./format.js";
import { recall, remember } from "./storage.js";

const CHANGED = "Others changed what the service set";
const SHOWN = 5;
const KNOWN = "known-missing";

export function problemText({ file, line, path, message }) {
  const where = [file && (line ? `${file}:${line}` : file), path].filter(Boolean).join(" ");
  return where ? `${where}: ${message}` : message;
}

function Lines({ lines }) {
  return html`<ul>
    ${lines.slice(0, SHOWN).map((line) => html`<li key=${line}>${line}</li>`)}
    ${lines.length > SHOWN && html`<li>and ${plural(lines.length - SHOWN, "more", "more")}</li>`}
  </ul>`;
}

export function Banners({ status }) {
  const lost = useStore(connection) === "lost";
  return html`<div class="banners">
    ${
      lost &&
      html`<${Notice} tone="bad" title="The service does not answer">
      What is shown may be old. The page tries again by itself.
    <//>`
    }
    ${status && html`<${Service} status=${status} />`}
  </div>`;
}

function Service({ status }) {
  const { last_reload: reload } = status.config;
  const failed = status.kernel.checks.filter((check) => !check.ok);
  const required = failed.filter((check) => check.required);
  return html`
    ${
      !reload.ok &&
      html`<${Notice} tone="bad" title="The configuration file is bad; the last good one stays in force">
      <${Lines} lines=${reload.problems.map(problemText)} />
      <a href=${href("configuration")}>Configuration</a>
    <//>`
    }
    ${
      !status.ready &&
      html`<${Notice} tone="bad" title=${status.reasons.length ? CHANGED : "The service is not ready yet"}>
      ${status.reasons.length > 0 && html`<${Lines} lines=${status.reasons} />`}
    <//>`
    }
    ${
      required.length > 0 &&
      html`<${Notice} tone="bad" title=${`The kernel does not have what is required: ${names(required)}`}>
      <a href=${href("doctor")}>Doctor: how to fix it</a>
    <//>`
    }
    <${Optional} missing=${names(failed.filter((check) => !check.required))} />
  `;
}

const names = (checks) => checks.map((check) => check.name).join(", ");

// The service does without them: who knows that need not read it again.
function Optional({ missing }) {
  const [known, setKnown] = useState(recall(KNOWN));
  if (!missing || missing === known) return null;
  const hide = () => {
    remember(KNOWN, missing);
    setKnown(missing);
  };
  return html`<${Notice} tone="warn" title=${`Not on this kernel: ${missing}`}>
    <a href=${href("doctor")}>Doctor: what that means</a>
    <button class="plain" onClick=${hide}>Hide</button>
  <//>`;
}
