/* SPDX-License-Identifier: GPL-2.0-only */
/* As little as a path manager can do: claims, and opens one subflow from the address in the map. */
#include "bpf_mptcp.h"

BPF_ARRAY(source, struct bpf_mptcp_addr,
	  1); /* family 0: claims nothing; written by the benchmark */

int bench(struct bpf_sock_ops *skops)
{
	volatile struct bpf_sock_ops_mptcp *ctx = (void *)skops;
	u32 key = 0, op = ctx->base.op;
	struct bpf_mptcp_addr *src;

	if (op != BPF_SOCK_OPS_MPTCP_NEW_SESSION && op != BPF_SOCK_OPS_MPTCP_FULLY_ESTABLISHED)
		return 1;
	src = source.lookup(&key);
	if (!src || !src->family)
		return 1;
	if (op == BPF_SOCK_OPS_MPTCP_NEW_SESSION)
		ctx->base.reply = BPF_MPTCP_CLAIM;
	else if (ctx->base.args[1])
		bpf_open_subflow(skops, src, sizeof(*src), 0, 0);
	return 1;
}
