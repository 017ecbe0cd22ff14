// SPDX-License-Identifier: Apache-2.0
// What a session has not, and why, in a few words: from what a list of sessions says about it.

import { plural } from "./format.js";

const pair = ({ local, remote }) => `${local.ip ?? local} → ${remote.ip ?? remote}`;

// [{tone, text}], the gravest first; empty where nothing is known to be missing.
export function lacks(session) {
  const found = [];
  for (const one of session.subflows) {
    if (one.stuck) found.push({ tone: "bad", text: `${pair(one)}: stuck, nothing is acknowledged` });
  }
  for (const one of session.failed) {
    found.push({ tone: "bad", text: `${pair(one)}: ${one.reason} (${plural(one.failures, "failure")})` });
  }
  for (const one of session.unroutable) found.push({ tone: "warn", text: `${pair(one)}: ${one.reason}` });
  for (const one of session.subflows) {
    if (one.state !== "established") found.push({ tone: "quiet", text: `${pair(one)}: ${one.state}` });
  }
  if (session.state === "created") found.push({ tone: "quiet", text: "not established yet" });
  if (!session.managed) found.push({ tone: "quiet", text: "not managed by the service" });
  else if (session.policy === null) found.push({ tone: "quiet", text: "no policy has its cgroup" });
  return found;
}

// One mark per path: [{tone, title}]
export function paths(session) {
  const marks = session.subflows.map((one) => ({
    tone: subflowTone(one),
    backup: one.backup || one.peer_backup,
    title: `${pair(one)} ${subflowState(one)}`,
  }));
  const missing = [...session.failed, ...session.unroutable].map((one) => ({
    tone: "absent",
    title: `${pair(one)} ${one.reason}`,
  }));
  return [...marks, ...missing];
}

export function subflowState(one) {
  const backup = one.backup || one.peer_backup ? ", backup" : "";
  return `${one.stuck ? "stuck" : one.state}${backup}`;
}

export function subflowTone(one) {
  if (one.stuck) return "bad";
  return one.state === "established" ? "good" : "warn";
}
