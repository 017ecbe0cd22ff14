/* SPDX-License-Identifier: GPL-2.0-only */
/* Claims every session and opens a subflow; asks for one more when a subflow repeats a segment. */
#include "bpf_mptcp.h"

BPF_ARRAY(results, s32, 1); /* of what was asked for then; begun by the test */

int outlived(struct bpf_sock_ops *skops)
{
	u32 key = 0;
	s32 result;

	switch (skops->op) {
	case BPF_SOCK_OPS_MPTCP_NEW_SESSION:
		skops->reply = BPF_MPTCP_CLAIM;
		break;
	case BPF_SOCK_OPS_MPTCP_FULLY_ESTABLISHED:
		if (skops->args[1])
			bpf_open_subflow(skops, 0, 0, 0, 0);
		break;
	case BPF_SOCK_OPS_MPTCP_SUBFLOW_ESTABLISHED:
		bpf_sock_ops_cb_flags_set(skops, BPF_SOCK_OPS_RTO_CB_FLAG);
		break;
	case BPF_SOCK_OPS_RTO_CB:
		result = bpf_open_subflow(skops, 0, 0, 0, 0);
		results.update(&key, &result);
		break;
	}
	return 1;
}
