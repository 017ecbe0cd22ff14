/* SPDX-License-Identifier: GPL-2.0-only */
/* Calls the helpers and reads the fields on whatever socket connects. */
#include "bpf_mptcp.h"

BPF_ARRAY(results, s32, 4); /* of the two helpers, then both tokens; read by the test */

int plain(struct bpf_sock_ops *skops)
{
	volatile struct bpf_sock_ops_mptcp *ctx = (void *)skops;
	u32 key = 0;
	s32 value;

	if (ctx->base.op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		return 1;
	value = bpf_open_subflow(skops, 0, 0, 0, 0);
	results.update(&key, &value);
	key++;
	value = bpf_close_subflow(skops, 0, 0, 0, 0);
	results.update(&key, &value);
	key++;
	value = ctx->mptcp_loc_token;
	results.update(&key, &value);
	key++;
	value = ctx->mptcp_rem_token;
	results.update(&key, &value);
	return 1;
}
