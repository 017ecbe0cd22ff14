// SPDX-License-Identifier: Apache-2.0
// What a session has not, and why, in a few words: from what a list of sessions says about it.

import { bytes, duration, plural } from "./format.js";

const pair = ({ local, remote }) => `${local.ip ?? local} → ${remote.ip ?? remote}`;
const isIPv6 = (ip) => ip.includes(":");
const isOwn = (ip) => ip === "::1" || ip.startsWith("127.");

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

// Why a session has one path only: from its policy and the addresses of this host, which are null until they are
// known. Null where the list cannot tell: the findings of the session do.
export function onePath(session, policy, addresses) {
  if (session.path_manager === "none") return "its policy wants one path: none";
  if (policy) {
    const waiting = notStarted(session, policy.start);
    if (waiting) return waiting;
  }
  const announced = session.remote_addresses.filter((one) => one.address_id !== 0);
  if (session.role === "server" && !announced.some((one) => one.port)) return "the client opens the paths";
  if (addresses === null) return null;
  const [{ ip }] = session.remote_addresses;
  if (isOwn(ip) || addresses.some((one) => one.ip === ip)) return "this host with itself: all paths are one";
  const wantsPairs = ["fullmesh", "backup"].includes(session.path_manager);
  if (!wantsPairs || announced.length > 0) return null;
  const usable = addresses.filter((one) => one.usable && isIPv6(one.ip) === isIPv6(ip));
  if (usable.some((one) => one.ip !== session.subflows[0]?.local.ip)) return null;
  return `no other usable ${isIPv6(ip) ? "IPv6" : "IPv4"} address here, and the peer announced none`;
}

// What of the policy's `start` is not reached: both parts have to be.
function notStarted(session, { after_s: afterS, after_bytes: afterBytes }) {
  const ageS = (Date.parse(session.sampled_at) - Date.parse(session.established_at)) / 1000;
  const moved = session.subflows.reduce((sum, one) => sum + (one.bytes_sent ?? 0) + (one.bytes_received ?? 0), 0);
  const parts = [
    ageS < afterS && `${afterS < 60 ? `${afterS} s` : duration(afterS)}`,
    moved < afterBytes && `${bytes(afterBytes)} (${bytes(moved)} so far)`,
  ].filter(Boolean);
  return parts.length ? `more paths after ${parts.join(" and ")}` : null;
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
