/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts of a session's subflows, as SUBFLOW_ESTABLISHED and SUBFLOW_CLOSED change them. */
#ifndef MPTCP_PM_SUBFLOWS_H
#define MPTCP_PM_SUBFLOWS_H

#include "locals.h"
#include "remotes.h"

/*
 * Of a session's failures the first are tried again at once, and after some more another pair may take the
 * place. After that a pair that fails keeps it: the service opens it, with backoff. A peer that refuses
 * whatever it gets has so many SYNs of this program, and no more.
 */
#define RETRIES 3
#define OTHERS 4

/* Whether the callback is about a request to open a subflow that never was one. */
static __always_inline bool is_request(struct bpf_sock_ops *skops)
{
	return FIELD(skops, args[3]) & BPF_MPTCP_SF_REQUEST;
}

/* Whether the callback is about the initial subflow. */
static __always_inline bool is_initial(struct bpf_sock_ops *skops)
{
	return !is_request(skops) && MPTCP_FIELD(skops, mptcp_flags) & BPF_MPTCP_F_MASTER;
}

/*
 * Index into `pairs` of the local address of the callback's subflow: INITIAL, or 1 + its slot;
 * beyond LOCALS where no slot has its id.
 */
static __always_inline u32 local_index(struct bpf_sock_ops *skops)
{
	u32 id = FIELD(skops, args[1]), slot;
	struct bpf_mptcp_addr *local;

	if (is_initial(skops) || !id)
		return INITIAL;
	for (slot = 0; slot < LOCALS; slot++) {
		local = slot_at(slot);
		if (local && local->id == id)
			break;
	}
	return 1 + slot;
}

/*
 * The number of the remote address of the callback's subflow; REMOTES where this end opens no subflow
 * to it.
 */
static __always_inline u32 remote_index(struct bpf_sock_ops *skops, struct claim *claim)
{
	struct bpf_mptcp_addr address = {};

	if (is_initial(skops))
		return INITIAL;
	if (is_request(skops))
		read_raddr(skops, &address);
	else
		read_remote(skops, &address);
	return find_remote(claim, &address);
}

/* A subflow was established, whoever opened it: this program, the service or the peer. */
static __always_inline void subflow_established(struct claim *claim, struct pair *pair)
{
	__sync_fetch_and_add(&claim->established, 1);
	if (!pair)
		return;
	if (pair->pending) {
		pair->pending--;
	} else {
		claim->total++;
		if (pair->failed)
			pair->failed--;
	}
	pair->live++;
}

/*
 * A subflow ended, or was never established. The path manager reopens what the pair no longer has,
 * unless it is `gone`: one of its addresses is.
 */
static __always_inline void subflow_closed(struct bpf_sock_ops *skops, struct claim *claim,
					   struct pair *pair, bool gone)
{
	u32 error = FIELD(skops, args[0]);
	/* Without an answer to the SYN there is no sequence number of the peer. */
	bool was_live = !is_request(skops) && FIELD(skops, rcv_nxt);

	if (pair && !pair->live)
		was_live = false; /* the peer's answer was wrong */
	if (was_live)
		__sync_fetch_and_add(&claim->established, -1);
	if (!pair && !was_live && claim->lingering) {
		claim->lingering--;
		claim->total--;
	}
	if (!pair || !(was_live || pair->pending))
		return;
	if (was_live && pair->left) {
		pair->left--;
		gone = true; /* by command or not: another is missing if the address is back */
	}
	if (was_live)
		pair->live--;
	else
		pair->pending--;
	if (gone) {
		claim->total--;
	} else if (error && claim->failures < RETRIES + OTHERS) {
		claim->total--;
		if (claim->failures++ >= RETRIES)
			pair->failed++;
	} else {
		pair->pending++; /* also on command: it stays closed */
	}
}

/*
 * ADDRESS_CHANGED: what waits at addresses that are gone does not any more, nor what the service closed
 * there, or gave up. When they are back, their subflows are missing. Branch-free, as fullmesh_round() is.
 */
static __always_inline void forget_waiting(struct claim *claim)
{
	u32 there = claim->usable_ip4 | claim->usable_ip6 | claim->usable_link_local, gone, pending;

	claim->came = there & ~claim->there;
	claim->there = there;
	claim->scratch = ~(there << 1 | is_zero(claim->lost));
	barrier();
	gone = claim->scratch;
	for (u32 remote = 0; remote < REMOTES && is_known(claim, remote); remote++) {
		for (u32 i = 0; i < PAIRS; i++) {
			struct pair *pair = &claim->remotes[remote].pairs[i];

			pending = pair->pending * (gone >> i & 1);
			pair->pending -= pending;
			claim->total -= pending;
			pair->failed *= ~gone >> i & 1;
			pair->left += (pair->live - pair->left) * (gone >> i & 1);
		}
	}
	barrier();
}

/* PRIORITY: what the peer wants of the subflow between the initial addresses. */
static __always_inline void note_priority(struct bpf_sock_ops *skops, struct claim *claim)
{
	struct bpf_mptcp_addr remote = {};

	read_remote(skops, &remote);
	/* Of the local address, the id tells: the initial one has none. */
	if (!FIELD(skops, args[1]) && same_ip(&remote, &claim->remotes[INITIAL].address) &&
	    remote.port == claim->remotes[INITIAL].address.port)
		claim->shunned = FIELD(skops, args[0]);
}

/* SUBFLOW_ESTABLISHED or SUBFLOW_CLOSED: both look for the pair in one place, which is much code. */
static __always_inline void count_subflow(struct bpf_sock_ops *skops, struct claim *claim)
{
	u32 index = local_index(skops), remote = remote_index(skops, claim);
	struct pair *pair = 0;
	bool gone = false;

	if (remote < REMOTES && index <= LOCALS) {
		pair = &claim->remotes[remote].pairs[index];
		gone = remote < claim->unreachable ||
		       (index == INITIAL ? claim->lost : !local_at(index - 1));
	}
	if (FIELD(skops, op) == BPF_SOCK_OPS_MPTCP_SUBFLOW_ESTABLISHED)
		subflow_established(claim, pair);
	else
		subflow_closed(skops, claim, pair, gone);
}

#endif
