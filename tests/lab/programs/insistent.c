/* SPDX-License-Identifier: GPL-2.0-only */
/* Claims every session, and asks for ADDRESS_CHANGED whenever it can. */
#include "bpf_mptcp.h"

BPF_ARRAY(calls, u32, 1); /* of ADDRESS_CHANGED; read by the test */

int insistent(struct bpf_sock_ops *skops)
{
	int zero = 0;
	u32 *count;

	switch (skops->op) {
	case BPF_SOCK_OPS_MPTCP_NEW_SESSION:
		skops->reply = BPF_MPTCP_CLAIM;
		break;
	case BPF_SOCK_OPS_MPTCP_ADDRESS_CHANGED:
		count = calls.lookup(&zero);
		if (count)
			__sync_fetch_and_add(count, 1);
		skops->reply = BPF_MPTCP_ADDRESSES;
		break;
	case BPF_SOCK_OPS_MPTCP_FULLY_ESTABLISHED:
		skops->reply = BPF_MPTCP_ADDRESSES;
		break;
	}
	return 1;
}
