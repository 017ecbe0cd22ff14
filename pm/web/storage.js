// SPDX-License-Identifier: Apache-2.0
// The reader's choices. A browser may keep nothing for a page, and says so by an exception: then it forgets them.

export function recall(name) {
  try {
    return localStorage.getItem(`mptcp-pm-${name}`);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`mptcp-pm-${name}`, value);
  } catch {
    // For this page it holds all the same.
  }
}
