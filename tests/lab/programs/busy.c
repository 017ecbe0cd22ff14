/* SPDX-License-Identifier: GPL-2.0-only */
/* Takes a while over each connect(), with the session locked where it is a subflow's. */
#include "bpf_mptcp.h"

#define LOOPS 6000
#define CALLS 120 /* of one loop */

BPF_ARRAY(busy_ns, u64, 1); /* how long; written by the test */

int busy(struct bpf_sock_ops *skops)
{
	u32 key = 0;
	u64 *ns = busy_ns.lookup(&key), end;

	if (skops->op != BPF_SOCK_OPS_TCP_CONNECT_CB || !ns)
		return 1;
	end = bpf_ktime_get_ns() + *ns;
	for (u32 i = 0; i < LOOPS && bpf_ktime_get_ns() < end; i++) {
#pragma unroll
		for (u32 j = 0; j < CALLS; j++)
			bpf_ktime_get_ns();
	}
	return 1;
}
