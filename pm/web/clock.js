// SPDX-License-Identifier: Apache-2.0
// The service's clock. The browser's own may be minutes off, and may be set while the page is open: ages and
// axes are of the service's time. How it is written is the reader's: in the time zone of the browser.

// What the service's clock is ahead of `performance.now()`, in milliseconds; null before the first answer.
let ahead = null;

// The Date header of an answer has whole seconds: it was written at some time within its second, and between
// `sent` and the answer (both by performance.now()). Each answer narrows what is possible.
export function learn(response, sent) {
  const second = Date.parse(response.headers.get("Date") ?? "");
  if (Number.isNaN(second)) return;
  const earliest = second - performance.now();
  const latest = second + 1000 - sent;
  ahead = ahead === null ? (earliest + latest) / 2 : Math.min(Math.max(ahead, earliest), latest);
}

// A moment that the service named, RFC 3339: it is not later than now.
export function learnMoment(text) {
  const earliest = Date.parse(text) - performance.now();
  if (ahead !== null && earliest > ahead) ahead = earliest;
}

// Milliseconds since the epoch, as the service counts them.
export const now = () => (ahead ?? performance.timeOrigin) + performance.now();
