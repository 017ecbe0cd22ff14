// SPDX-License-Identifier: Apache-2.0
// The login: the token is sent once, and a cookie that no script can read stands for it.

import { logIn } from "./api.js";
import { Notice, html, useEffect, useRef, useState } from "./dom.js";

export function LoginView({ error }) {
  const [problem, setProblem] = useState(error);
  const [busy, setBusy] = useState(false);
  const field = useRef();
  useEffect(() => field.current.focus(), []);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      await logIn({ token: field.current.value.trim() });
    } catch (found) {
      setProblem(found);
      field.current.select();
    } finally {
      setBusy(false);
    }
  };
  return html`<form class="login card" onSubmit=${submit}>
    <h1>Log in</h1>
    <p>
      The token is in the file that <code>api.tcp.token_file</code> names. A page
      of${" "}<code>mptcp-pm web</code>${" "}has none: run the command again for a new address.
    </p>
    <label for="token">Token</label>
    <input id="token" type="password" autocomplete="current-password" required ref=${field} />
    ${problem && html`<${Notice} tone="bad" title=${refusal(problem)} />`}
    <button class="primary" disabled=${busy}>Log in</button>
  </form>`;
}

function refusal(problem) {
  if (!problem.message) return problem.title;
  if (problem.status === 401) return "This token is not valid";
  return `${problem.title}${problem.message ? `: ${problem.message}` : ""}`;
}
