/* SPDX-License-Identifier: GPL-2.0-only */
/* Asks for all that the helpers can do, on each received packet, and counts the answers. */
#include "bpf_mptcp.h"

#define AF_INET 2
#define EPERM 1

BPF_ARRAY(answers, s64, 2); /* EPERM, any other; read by the test */

static __always_inline void note(long answer)
{
	int index = answer != -EPERM;
	s64 *count = answers.lookup(&index);

	if (count)
		__sync_fetch_and_add(count, 1);
}

int meddle(struct bpf_sock_ops *skops)
{
	struct bpf_mptcp_addr address = { .family = AF_INET,
					  .ip4 = bpf_htonl(0x0a020001),
					  .id = 9 };

	if (skops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		bpf_sock_ops_cb_flags_set(skops, BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG);
	if (skops->op != BPF_SOCK_OPS_PARSE_HDR_OPT_CB)
		return 1;
	note(bpf_close_subflow(skops, 0, 0, 0, 0));
	note(bpf_open_subflow(skops, 0, 0, 0, 0));
	address.flags = BPF_MPTCP_ADDR_ANNOUNCE;
	note(bpf_open_subflow(skops, &address, sizeof(address), 0, 0));
	address.flags = BPF_MPTCP_ADDR_WITHDRAW;
	note(bpf_close_subflow(skops, &address, sizeof(address), 0, 0));
	address.flags = BPF_MPTCP_ADDR_PRIO | BPF_MPTCP_ADDR_BACKUP;
	note(bpf_open_subflow(skops, &address, sizeof(address), 0, 0));
	return 1;
}
