// SPDX-License-Identifier: GPL-2.0-only
/* Somebody else's program: counts how often it is called to write options; one that asks for it, one that does not. */

BPF_ARRAY(calls, u64, 1);

static __always_inline void watch(struct bpf_sock_ops *skops)
{
	int index = 0;
	u64 *value = calls.lookup(&index);

	if (value && skops->op == BPF_SOCK_OPS_HDR_OPT_LEN_CB)
		(*value)++;
}

int watches(struct bpf_sock_ops *skops)
{
	watch(skops);
	return 1;
}

int asks(struct bpf_sock_ops *skops)
{
	if (skops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		bpf_sock_ops_cb_flags_set(skops, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	watch(skops);
	return 1;
}
