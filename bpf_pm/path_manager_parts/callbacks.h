/* SPDX-License-Identifier: GPL-2.0-only */
/* What each callback does to the claim of its session. */
#ifndef MPTCP_PM_CALLBACKS_H
#define MPTCP_PM_CALLBACKS_H

#include "following.h"
#include "loader_constants.h"
#include "policy_rules.h"
#include "routes.h"
#include "subflows.h"

/*
 * NEW_SESSION: programs of inner cgroups run first; one of them may have claimed it. Otherwise this
 * claim is the first, and stands: what is entered here has its CLOSE_SESSION.
 */
static __always_inline void claim_session(struct bpf_sock_ops *skops, u32 token)
{
	struct bpf_sock *sk = skops->sk;
	struct claim *claim;

	if (MPTCP_FIELD(skops, mptcp_flags) & BPF_MPTCP_F_CLAIMED ||
	    bpf_get_netns_cookie(skops) != NETNS_COOKIE || is_left_alone(skops))
		return;
	claim = add_claim(token);
	if (!claim) {
		count(CLAIM_COUNTER_CLAIM_FAILED);
		return;
	}
	claim->policy = POLICY_ID;
	claim->ip4_only = FIELD(skops, family) == AF_INET;
	read_local(skops, &claim->local);
	read_remote(skops, &claim->remotes[INITIAL].address);
	if (sk) {
		/* The kernel binds sockets with link-local addresses by itself. */
		claim->device = is_link_local(&claim->local) ? 0 : sk->bound_dev_if;
		claim->mark = sk->mark;
	}
	claim->itself = is_loopback(&claim->remotes[INITIAL].address) ||
			interface_of(&claim->remotes[INITIAL].address);
	initial_pair(claim)->live = 1;
	claim->total = 1;
	claim->established = 1;
	/* A client's port is ephemeral: nobody listens there. */
	if (MPTCP_FIELD(skops, mptcp_flags) & (BPF_MPTCP_F_SERVER | BPF_MPTCP_F_DENY_JOIN_ID0))
		claim->denied = claim->unreachable = 1;
	count(CLAIM_COUNTER_CLAIMED);
	skops->reply = BPF_MPTCP_CLAIM;
}

/*
 * ORPHAN_SESSION: the link through which this policy claimed the session is gone, and its program is
 * attached again. What another policy claimed is the service's (docs/kernel-abi.md).
 */
static __always_inline void adopt_session(struct bpf_sock_ops *skops, u32 token)
{
	if (!(MPTCP_FIELD(skops, mptcp_flags) & BPF_MPTCP_F_CLAIMED) &&
	    bpf_get_netns_cookie(skops) == NETNS_COOKIE && find_claim(token))
		skops->reply = BPF_MPTCP_CLAIM;
}

/* The policy's claim of the callback's session, added at its first callback; 0: leave it alone. */
static __always_inline struct claim *claim_of_callback(struct bpf_sock_ops *skops)
{
	u32 op = FIELD(skops, op), token;

	if (op != BPF_SOCK_OPS_PARSE_HDR_OPT_CB && op != BPF_SOCK_OPS_MPTCP_ORPHAN_SESSION &&
	    op != BPF_SOCK_OPS_MPTCP_ADDRESS_CHANGED &&
	    (op < BPF_SOCK_OPS_MPTCP_NEW_SESSION || op > BPF_SOCK_OPS_MPTCP_PRIORITY))
		return 0;
	token = MPTCP_FIELD(skops, mptcp_loc_token);
	if (op == BPF_SOCK_OPS_MPTCP_NEW_SESSION) {
		claim_session(skops, token);
		return 0;
	}
	if (op == BPF_SOCK_OPS_MPTCP_ORPHAN_SESSION) {
		adopt_session(skops, token);
		return 0;
	}
	if (op == BPF_SOCK_OPS_MPTCP_CLOSE_SESSION) {
		delete_claim(token);
		return 0;
	}
	if (op == BPF_SOCK_OPS_MPTCP_ADDRESS_CHANGED)
		follow_addresses(skops);
	return find_claim(token);
}

/*
 * Bring the claim up to date. True: subflows may be opened, and the path manager shall see which are
 * missing. `p` is 0 where the policy has no parameters any more. What the application bound to an
 * interface is left to the service, which knows what belongs to a VRF.
 */
static __always_inline bool handle_callback(struct bpf_sock_ops *skops, struct claim *claim,
					    const struct path_parameters *p)
{
	u32 op = FIELD(skops, op);

	if (op == BPF_SOCK_OPS_PARSE_HDR_OPT_CB &&
	    (claim->started || !claim->established_ns ||
	     !(MPTCP_FIELD(skops, mptcp_flags) & BPF_MPTCP_F_MASTER)))
		return false;
	refresh_locals(claim);
	claim->came = 0;
	end_lingering(claim);
	switch (op) {
	case BPF_SOCK_OPS_MPTCP_FULLY_ESTABLISHED:
		if (!FIELD(skops, args[1]))
			return false;
		claim->established_ns = bpf_ktime_get_ns();
		claim->there = claim->usable_ip4 | claim->usable_ip6 | claim->usable_link_local;
		ask_to_look(skops);
		break;
	case BPF_SOCK_OPS_MPTCP_ADDRESS_CHANGED:
		forget_waiting(claim);
		break;
	case BPF_SOCK_OPS_MPTCP_ADD_RADDR:
		remember_remote(skops, claim);
		break;
	case BPF_SOCK_OPS_MPTCP_REM_RADDR:
		forget_remote(claim, FIELD(skops, args[0]));
		break;
	case BPF_SOCK_OPS_MPTCP_SUBFLOW_ESTABLISHED:
	case BPF_SOCK_OPS_MPTCP_SUBFLOW_CLOSED:
		count_subflow(skops, claim);
		break;
	case BPF_SOCK_OPS_MPTCP_PRIORITY:
		note_priority(skops, claim);
		break;
	case BPF_SOCK_OPS_MPTCP_JOIN_REQUEST:
		if (p && !accepts(skops, claim, p)) {
			count(CLAIM_COUNTER_JOINS_REFUSED);
			skops->reply = BPF_MPTCP_REFUSE;
		}
		return false;
	}
	if (!p)
		return false;
	if (op == BPF_SOCK_OPS_MPTCP_FULLY_ESTABLISHED || op == BPF_SOCK_OPS_PARSE_HDR_OPT_CB)
		check_start(skops, claim, p);
	fill_tokens(claim, p);
	if (!claim->started || claim->itself || claim->device)
		return false;
	refresh_routes(claim);
	return true;
}

#endif
