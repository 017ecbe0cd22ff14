/* SPDX-License-Identifier: GPL-2.0-only */
/* A program for the patched kernel's callbacks, without the service: claims each session that its
 * cgroup opens, and opens one more subflow between the initial addresses.
 */
#include "bpf_mptcp.h"

int second_subflow(struct bpf_sock_ops *skops)
{
	volatile struct bpf_sock_ops_mptcp *ctx = (void *)skops;

	switch (ctx->base.op) {
	case BPF_SOCK_OPS_MPTCP_NEW_SESSION:
		if (!ctx->base.args[0]) /* not on the server */
			ctx->base.reply = BPF_MPTCP_CLAIM;
		break;
	case BPF_SOCK_OPS_MPTCP_FULLY_ESTABLISHED:
		if (ctx->base.args[1]) /* the initial subflow */
			bpf_open_subflow(skops, 0, 0, 0, 0);
		break;
	}
	return 1;
}
