/* SPDX-License-Identifier: GPL-2.0-only */
/* Sets TCP_BPF_DELACK_SEGS on what connects to the cgroup, and reads it back. */
#include "bpf_mptcp.h"

#define TCP_LEVEL 6 /* SOL_TCP */

BPF_ARRAY(segments, s32, 1); /* written by the test */
BPF_ARRAY(results, s32, 3); /* of setsockopt, of getsockopt, the value read; read by the test */

int delack(struct bpf_sock_ops *skops)
{
	u32 op = skops->op, key = 0;
	s32 *wanted = segments.lookup(&key), value, result;

	if (!wanted || op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	value = *wanted;
	result = bpf_setsockopt(skops, TCP_LEVEL, TCP_BPF_DELACK_SEGS, &value, sizeof(value));
	results.update(&key, &result);
	value = -1;
	key = 1;
	result = bpf_getsockopt(skops, TCP_LEVEL, TCP_BPF_DELACK_SEGS, &value, sizeof(value));
	results.update(&key, &result);
	key = 2;
	results.update(&key, &value);
	return 1;
}
