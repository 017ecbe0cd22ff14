// SPDX-License-Identifier: Apache-2.0
// Requests to the service, and the login. Paths are relative: the page may stand behind a proxy's prefix.

import { learn } from "./clock.js";
import { Store } from "./dom.js";

const TIMEOUT_MS = 10_000;

// Whether the service wants a token first.
export const loginWanted = new Store(false);
// Whether this browser has logged in: then there is something to log out of.
export const loggedIn = new Store(false);

// An answer that is no success. `status` is 0 where the service did not answer.
export class Problem extends Error {
  constructor(status, title, message, document = {}) {
    super(message);
    this.status = status;
    this.title = title;
    this.document = document;
  }
}

export async function call(method, path, body, signal) {
  const headers = { "X-Mptcp-Pm": "1" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const sent = performance.now();
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, "The service does not answer", "It is tried again by itself.");
  }
  learn(response, sent);
  if (!response.ok) throw await problem(response);
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch {
    throw new Problem(0, "The answer of the service broke off", "It is tried again by itself.");
  }
}

export const get = (path, signal) => call("GET", path, undefined, signal);

export async function problem(response) {
  let document = {};
  try {
    document = await response.json();
  } catch {
    // Not from the service itself, or broken off: the status has to do.
  }
  if (response.status === 401) loginWanted.set(true);
  const more = (document.problems ?? []).map((p) => p.message).join("; ");
  const message = [document.detail, more, document.kernel_message].filter(Boolean).join(": ");
  return new Problem(
    response.status,
    document.title ?? `The service answered with ${response.status}`,
    message,
    document,
  );
}

// `what` is {token} or {code}.
export async function logIn(what) {
  await call("POST", "v1/login", what);
  loggedIn.set(true);
  loginWanted.set(false);
}

export async function logOut() {
  await call("POST", "v1/logout");
  loggedIn.set(false);
  loginWanted.set(true);
}

export async function askAboutLogin() {
  try {
    const { logged_in: found } = await get("v1/login");
    loggedIn.set(found);
    if (found) loginWanted.set(false);
  } catch {
    // Whatever is wrong, the requests of the views say it.
  }
}

const CODE = /^#code=(.+)$/;
export const isCode = () => CODE.test(location.hash);

// The one-time code of `mptcp-pm web` leaves the address bar and the history before anything else happens.
export async function redeemCode() {
  const found = CODE.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    await logIn({ code: decodeURIComponent(found[1]) });
    return null;
  } catch (error) {
    loginWanted.set(true);
    const used = error.status >= 400 && error.status < 500;
    return used ? new Problem(error.status, "The code of this address is not valid any more", "") : error;
  }
}
