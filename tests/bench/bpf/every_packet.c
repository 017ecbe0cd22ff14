// SPDX-License-Identifier: GPL-2.0-only
/*
 * The paper's benchmark programs (section 2.4): a sender that inserts an option in
 * every packet, a receiver that parses it, one that also gets and sets a socket
 * option each time. The option is that of the paper's Listing 1.
 */
#define KIND 66
#define LENGTH 4
#define SEGMENTS 20
#define SOL_TCP 6
#define TCP_USER_TIMEOUT 18
#define TIMEOUT_MS 30000
#define TWO_JIFFIES_US 20000 /* with HZ=100; no shorter with more */

static __always_inline void ask_for(struct bpf_sock_ops *skops, u32 callback)
{
	bpf_sock_ops_cb_flags_set(skops, skops->bpf_sock_ops_cb_flags | callback);
}

/* The sender's: asks for its callbacks, and keeps room for the option in each header. */
static __always_inline void make_room(struct bpf_sock_ops *skops)
{
	if (skops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		ask_for(skops, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	else if (skops->op == BPF_SOCK_OPS_HDR_OPT_LEN_CB)
		bpf_reserve_hdr_opt(skops, LENGTH, 0);
}

/* What the kernel's calls cost by themselves. */
int callbacks(struct bpf_sock_ops *skops)
{
	if (skops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		ask_for(skops, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	return 1;
}

/* And what they cost with a longer header: the kernel fills it with no-operations. */
int reserve(struct bpf_sock_ops *skops)
{
	make_room(skops);
	return 1;
}

int insert(struct bpf_sock_ops *skops)
{
	u8 option[LENGTH] = { KIND, LENGTH, 0, SEGMENTS };

	make_room(skops);
	if (skops->op == BPF_SOCK_OPS_WRITE_HDR_OPT_CB)
		bpf_store_hdr_opt(skops, option, LENGTH, 0);
	return 1;
}

static __always_inline bool find(struct bpf_sock_ops *skops)
{
	u8 option[LENGTH] = { KIND };

	switch (skops->op) {
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		ask_for(skops, BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG);
		return false;
	case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
		return bpf_load_hdr_opt(skops, option, LENGTH, 0) == LENGTH;
	}
	return false;
}

int parse(struct bpf_sock_ops *skops)
{
	find(skops);
	return 1;
}

int parse_and_set(struct bpf_sock_ops *skops)
{
	u32 timeout_ms;

	if (!find(skops))
		return 1;
	bpf_getsockopt(skops, SOL_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
	timeout_ms = TIMEOUT_MS;
	bpf_setsockopt(skops, SOL_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
	return 1;
}

/* The effect of delayed_ack by itself: the cap that its receiver sets on a short path. */
int delay_acks(struct bpf_sock_ops *skops)
{
	u32 timeout_us = TWO_JIFFIES_US;

	if (skops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		bpf_setsockopt(skops, SOL_TCP, TCP_BPF_DELACK_MAX, &timeout_us, sizeof(timeout_us));
	return 1;
}
