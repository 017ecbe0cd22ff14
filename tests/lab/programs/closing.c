/* SPDX-License-Identifier: GPL-2.0-only */
/* Somebody else's program, which asks for RTT callbacks: what it is told beside, and whether they stay. */
BPF_ARRAY(seen, u32,
	  3); /* RTT callbacks; sockets that were closed; those that still had the RTT flag */

static __always_inline void note(int index)
{
	u32 *value = seen.lookup(&index);

	if (value)
		__sync_fetch_and_add(value, 1);
}

int closing(struct bpf_sock_ops *skops)
{
	switch (skops->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		bpf_sock_ops_cb_flags_set(skops,
					  skops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTT_CB_FLAG);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		note(0);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (skops->args[1] != BPF_TCP_CLOSE)
			break;
		note(1);
		if (skops->bpf_sock_ops_cb_flags & BPF_SOCK_OPS_RTT_CB_FLAG)
			note(2);
		break;
	}
	return 1;
}
