/* SPDX-License-Identifier: GPL-2.0-only */
/* Claims every session, and looks at the local addresses in FULLY_ESTABLISHED and ADDRESS_CHANGED. */
#include "bpf_mptcp.h"

#define ADDRESSES 64
#define SESSIONS 32768

struct view {
	s32 found; /* what the helper returned, or a negative error */
	u32 room; /* addresses that the test wants; read here */
	struct bpf_mptcp_addr addresses[ADDRESSES];
};

enum { CALLS, TOGETHER, REPLY_ESTABLISHED, REPLY_CHANGED, LENGTH_3, LENGTH_0, FIGURES };

BPF_ARRAY(views, struct view, 1);
BPF_ARRAY(figures, u32, FIGURES); /* the replies are written by the test */
BPF_HASH(told, u32, u32, SESSIONS); /* key: token; value: the generation when it was last called */
BPF_HASH(calls, u32, u32, SESSIONS); /* key: token; value: how often it was called */

static __always_inline u32 *figure(int index)
{
	return figures.lookup(&index);
}

int look(struct bpf_sock_ops *skops)
{
	volatile struct bpf_sock_ops_mptcp *ctx = (void *)skops;
	u32 op = ctx->base.op, token, generation, none = 0, *number, *reply;
	bool changed = op == BPF_SOCK_OPS_MPTCP_ADDRESS_CHANGED;
	struct view *view;
	int zero = 0;

	if (op == BPF_SOCK_OPS_MPTCP_NEW_SESSION) {
		ctx->base.reply = BPF_MPTCP_CLAIM;
		return 1;
	}
	if (op != BPF_SOCK_OPS_MPTCP_FULLY_ESTABLISHED && !changed)
		return 1;
	view = views.lookup(&zero);
	if (!view)
		return 1;
	generation = bpf_mptcp_locals(skops, 0, 0);
	number = figure(LENGTH_3);
	if (number)
		*number = bpf_mptcp_locals(skops, view->addresses, 3);
	number = figure(LENGTH_0);
	if (number)
		*number = bpf_mptcp_locals(skops, view->addresses, 0);
	if (view->room)
		view->found = bpf_mptcp_locals(skops, view->addresses, sizeof(view->addresses[0]));
	else
		view->found = bpf_mptcp_locals(skops, view->addresses, sizeof(view->addresses));
	reply = figure(changed ? REPLY_CHANGED : REPLY_ESTABLISHED);
	if (reply && *reply) {
		ctx->base.reply = *reply;
		*reply = 0;
	}
	if (!changed)
		return 1;
	number = figure(CALLS);
	if (number)
		__sync_fetch_and_add(number, 1);
	token = ctx->mptcp_loc_token;
	told.update(&token, &generation);
	number = calls.lookup_or_try_init(&token, &none);
	if (number)
		__sync_fetch_and_add(number, 1);
	return 1;
}
