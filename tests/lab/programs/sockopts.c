/* SPDX-License-Identifier: GPL-2.0-only */
/* Claims every session, opens a subflow and closes it, and tries socket options in each callback. */
#include "bpf_mptcp.h"

#define SOL_TCP 6
#define TCP_CONGESTION 13
#define TCP_NOTSENT_LOWAT 25 /* MPTCP has something to do later, then */
#define OPS 12

/* key: callback - 100; value: of setsockopt, getsockopt; begun by the test */
BPF_ARRAY(set_results, s32, OPS);
BPF_ARRAY(get_results, s32, OPS);

int sockopts(struct bpf_sock_ops *skops)
{
	u32 kind = skops->op - BPF_SOCK_OPS_MPTCP_NEW_SESSION;
	bool initial = skops->args[1];
	char name[16] = {};
	int bytes = 100000;
	s32 *result;

	if (kind >= OPS)
		return 1;
	result = set_results.lookup(&kind);
	if (result)
		*result = bpf_setsockopt(skops, SOL_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof(bytes));
	result = get_results.lookup(&kind);
	if (result)
		*result = bpf_getsockopt(skops, SOL_TCP, TCP_CONGESTION, name, sizeof(name));
	switch (skops->op) {
	case BPF_SOCK_OPS_MPTCP_NEW_SESSION:
		skops->reply = BPF_MPTCP_CLAIM;
		break;
	case BPF_SOCK_OPS_MPTCP_FULLY_ESTABLISHED:
		if (initial)
			bpf_open_subflow(skops, 0, 0, 0, 0);
		break;
	case BPF_SOCK_OPS_MPTCP_SUBFLOW_ESTABLISHED:
		bpf_close_subflow(skops, 0, 0, 0, 0);
		break;
	}
	return 1;
}
