// SPDX-License-Identifier: Apache-2.0
// Nothing is changed without a question before. One dialog at a time.

import { Notice, Store, announcement, html, useEffect, useRef, useState, useStore } from "./dom.js";
import { refresh } from "./polling.js";

// {title, text, action, danger, form, run}: `run(form element)` does it; `form` are fields, as a component.
const asked = new Store(null);

export function ask(question) {
  asked.set(question);
}

export function Dialog() {
  const question = useStore(asked);
  return question && html`<${Open} key=${question.title} question=${question} />`;
}

function Open({ question }) {
  const dialog = useRef();
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => dialog.current.showModal(), []);
  const close = () => asked.set(null);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      await question.run(event.target);
      announcement.set(`${question.title}: done`);
      dialog.current?.close();
    } catch (found) {
      setProblem(found);
    } finally {
      setBusy(false);
      refresh();
    }
  };
  return html`<dialog ref=${dialog} onClose=${close} aria-labelledby="dialog-title">
    <form onSubmit=${submit}>
      <h2 id="dialog-title">${question.title}</h2>
      ${question.text && html`<p>${question.text}</p>`} ${question.form && html`<${question.form} />`}
      ${problem && html`<${Notice} tone="bad" title=${problem.title}>${problem.message}<//>`}
      <div class="buttons">
        <button type="button" onClick=${() => dialog.current.close()}>Cancel</button>
        <button class=${question.danger ? "danger" : "primary"} disabled=${busy}>
          ${busy ? "One moment …" : question.action}
        </button>
      </div>
    </form>
  </dialog>`;
}
