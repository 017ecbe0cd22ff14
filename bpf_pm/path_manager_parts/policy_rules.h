/* SPDX-License-Identifier: GPL-2.0-only */
/* A policy's rules: when subflows may be opened, and which of the peer's are accepted. */
#ifndef MPTCP_PM_POLICY_RULES_H
#define MPTCP_PM_POLICY_RULES_H

#include "maps.h"
#include "mptcp_context.h"

/*
 * Start the session once the policy's start conditions hold. Until then check on every received
 * packet, so that sessions that only receive start, too.
 */
static __always_inline void check_start(struct bpf_sock_ops *skops, struct claim *claim,
					const struct path_parameters *p)
{
	u32 flags = FIELD(skops, bpf_sock_ops_cb_flags);

	if (bpf_ktime_get_ns() - claim->established_ns < p->start_after_ns ||
	    skops->bytes_acked + skops->bytes_received < p->start_after_bytes) {
		if (!(flags & BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG)) {
			claim->parsing = true;
			bpf_sock_ops_cb_flags_set(skops,
						  flags | BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG);
		}
		return;
	}
	if (claim->parsing)
		bpf_sock_ops_cb_flags_set(skops, flags & ~BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG);
	claim->parsing = false;
	claim->started = true;
}

/*
 * How many subflows may be opened now. The peer announces addresses, and the SYNs go there from here: the
 * policy's rate bounds them, however fast the peer is. What must wait is left to the service.
 */
static __always_inline void fill_tokens(struct claim *claim, const struct path_parameters *p)
{
	u64 now = bpf_ktime_get_ns(), spent;

	if (claim->opens_full_ns < now)
		claim->opens_full_ns = now;
	spent = claim->opens_full_ns - now;
	claim->open_interval_ns = p->open_interval_ns;
	claim->tokens = spent < p->open_burst_ns && p->open_interval_ns ?
				(p->open_burst_ns - spent) / p->open_interval_ns :
				0;
}

/* JOIN_REQUEST: whether the policy's accept rules let the peer open one more subflow. */
static __always_inline bool accepts(struct bpf_sock_ops *skops, struct claim *claim,
				    const struct path_parameters *p)
{
	struct accepted_peer peer = {
		.length = 8 * (sizeof(peer.policy) + sizeof(peer.ip)),
		.policy = { claim->policy, claim->policy >> 32 },
	};
	struct bpf_mptcp_addr address = {};

	if (claim->established >= p->accept_max_subflows)
		return false;
	if (!p->accept_listed)
		return true;
	read_remote(skops, &address);
	__builtin_memcpy(peer.ip, address.ip6, sizeof(peer.ip));
	return is_accepted_peer(&peer);
}

#endif
