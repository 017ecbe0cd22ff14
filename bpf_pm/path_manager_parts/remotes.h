/* SPDX-License-Identifier: GPL-2.0-only */
/* A session's remote addresses: the initial one, and those that the peer announced. */
#ifndef MPTCP_PM_REMOTES_H
#define MPTCP_PM_REMOTES_H

#include "maps.h"
#include "mptcp_context.h"

/* A SYN without an answer is given up by then (net.ipv4.tcp_syn_retries). */
#define LINGER_NS (130 * 1000000000ULL)

/*
 * Take away a pair's subflows that are on their way, or left to the service: the peer withdrew the address.
 * They go on counting, for SYNs of theirs may be under way.
 */
static __always_inline void linger(struct claim *claim, struct pair *pair)
{
	claim->lingering += pair->pending;
	claim->lingering_ns = bpf_ktime_get_ns();
	pair->pending = 0;
}

/* What has lingered for long enough counts no more. */
static __always_inline void end_lingering(struct claim *claim)
{
	if (!claim->lingering || bpf_ktime_get_ns() - claim->lingering_ns < LINGER_NS)
		return;
	claim->total -= claim->lingering;
	claim->lingering = 0;
}

/* The number of a remote address; REMOTES where the session does not have it. */
static __always_inline u32 find_remote(struct claim *claim, const struct bpf_mptcp_addr *address)
{
	u32 r;

	for (r = 0; r < REMOTES; r++) {
		if (!is_known(claim, r))
			return REMOTES;
		if (claim->remotes[r].address.port == address->port &&
		    same_ip(&claim->remotes[r].address, address))
			break;
	}
	return r;
}

/* Whether subflows can be opened to the initial remote follows from `denied` and its id. */
static __always_inline void update_reachable(struct claim *claim)
{
	claim->unreachable = claim->denied && !claim->remotes[INITIAL].address.id;
}

/*
 * The initial remote went, or the id under which it was announced did. The kernel closes its subflows, and
 * they leave the count then; those that are on their way are not wanted any more.
 */
static __always_inline void withdraw_initial(struct claim *claim, u32 id)
{
	claim->remotes[INITIAL].address.id = 0;
	if (!id)
		claim->denied = 1;
	update_reachable(claim);
	if (!claim->unreachable)
		return;
	for (u32 i = 0; i <= LOCALS; i++) {
		linger(claim, &claim->remotes[INITIAL].pairs[i]);
		claim->remotes[INITIAL].pairs[i].failed = 0;
	}
}

/* REM_RADDR: remove the address with this id. Those behind it move up. */
static __always_inline void forget_remote(struct claim *claim, u32 id)
{
	u32 found;

	if (id == claim->remotes[INITIAL].address.id || !id) {
		withdraw_initial(claim, id);
		return;
	}
	for (found = 1; found < REMOTES; found++) {
		if (!is_known(claim, found))
			return;
		if (claim->remotes[found].address.id == id)
			break;
	}
	if (found >= REMOTES)
		return;
	for (u32 i = 0; i <= LOCALS; i++) {
		linger(claim, &claim->remotes[found].pairs[i]);
		claim->total -= claim->remotes[found].pairs[i].live;
	}
	for (u32 r = 1; r < REMOTES - 1; r++) {
		if (r >= found)
			claim->remotes[r] = claim->remotes[r + 1];
	}
	__builtin_memset(&claim->remotes[REMOTES - 1], 0, sizeof(struct remote));
}

/* Whether subflows may go to an address that the peer announced. */
static __always_inline bool is_allowed(struct claim *claim, const struct bpf_mptcp_addr *address)
{
	u32 flags = remote_flags(address), first = remote_flags(&claim->remotes[INITIAL].address);

	/* What is a matter of the first remote too must be so there; and allowed in any case. */
	return !((flags & ~first & ~REMOTE_FLAG_ALLOWED) | (~flags & REMOTE_FLAG_ALLOWED)) &&
	       !interface_of(address);
}

/*
 * ADD_RADDR: add the address, if subflows may go there. Where no port was announced, a client takes the server's port
 * (RFC 8684, section 3.4.1); a server reaches only addresses that were announced with a port.
 */
static __always_inline void remember_remote(struct bpf_sock_ops *skops, struct claim *claim)
{
	struct bpf_mptcp_addr address = {};
	u32 known;

	read_raddr(skops, &address);
	if (!address.port) {
		if (MPTCP_FIELD(skops, mptcp_flags) & BPF_MPTCP_F_SERVER)
			return;
		address.port = claim->remotes[INITIAL].address.port;
	}
	known = find_remote(claim, &address);
	if (known == INITIAL) {
		claim->remotes[INITIAL].address.id = address.id;
		if (!address.id)
			claim->denied = 0;
		update_reachable(claim);
	}
	if (known < REMOTES)
		return;
	forget_remote(claim, address.id); /* its id may have been another address's before */
	if (!is_allowed(claim, &address))
		return;
	for (u32 r = 1; r < REMOTES; r++) {
		if (!is_known(claim, r)) {
			claim->remotes[r].address = address;
			return;
		}
	}
}

#endif
