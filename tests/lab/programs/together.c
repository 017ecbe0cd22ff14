/* SPDX-License-Identifier: GPL-2.0-only */
/* Claims every session, and counts the callbacks that another one of the same session interrupts. */
#include "bpf_mptcp.h"

#define LOOPS 20000

BPF_ARRAY(seen, u32, 2); /* callbacks, interrupted ones; read by the test */
BPF_HASH(inside, u32, u64, 64); /* key: token; value: when the callback that runs began */

static __always_inline void note(int index)
{
	u32 *value = seen.lookup(&index);

	if (value)
		__sync_fetch_and_add(value, 1);
}

int together(struct bpf_sock_ops *skops)
{
	volatile struct bpf_sock_ops_mptcp *ctx = (void *)skops;
	u64 now = bpf_ktime_get_ns();
	u32 token, i, op = ctx->base.op;
	volatile u64 *running;

	if (op < BPF_SOCK_OPS_MPTCP_NEW_SESSION)
		return 1;
	token = ctx->mptcp_loc_token;
	if (op == BPF_SOCK_OPS_MPTCP_NEW_SESSION) {
		inside.update(&token, &now);
		ctx->base.reply = BPF_MPTCP_CLAIM;
		return 1;
	}
	running = inside.lookup(&token);
	if (!running)
		return 1;
	*running = now;
	for (i = 0; i < LOOPS; i++)
		__asm__ __volatile__("" ::: "memory");
	note(0);
	if (*running != now)
		note(1);
	return 1;
}
