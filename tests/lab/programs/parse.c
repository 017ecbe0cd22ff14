/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts the packets for which sock_ops programs are asked. */

/* key: 0; value: how many. Written here, read by the test. */
BPF_ARRAY(parsed, u64, 1);

int parse(struct bpf_sock_ops *skops)
{
	int zero = 0;
	u64 *value = parsed.lookup(&zero);

	if (value && skops->op == BPF_SOCK_OPS_PARSE_HDR_OPT_CB)
		(*value)++;
	return 1;
}
