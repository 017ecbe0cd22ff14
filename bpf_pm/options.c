// SPDX-License-Identifier: GPL-2.0-only
/*
 * TCP-option plugins: a sock_ops program for the cgroups of one policy. It calls the plugins of the
 * policy, and owns what they share: option space, callback flags and counters. It stands beside the
 * classifier, not within: a policy without options has nothing of this. The verifier removes the
 * plugins that a policy does not use, since PLUGINS is constant.
 *
 * This file has the maps, and each function that calls a method of a map: BCC rewrites such calls in
 * the main file only (docs/decisions/0014-parts-of-bpf-programs.md). The rest is in option_parts/.
 */
#include "option_parts/callbacks.h"

#define NO_PREALLOC 1

/*
 * key: a socket in a policy with options, or below one; value: its state. Written here: the first,
 * innermost program that sees the socket owns it. The service reads it by sock_diag.
 */
BPF_SK_STORAGE(states, struct option_state);

/* key: policy; value: its parameters. Written by the service, read here. */
BPF_F_TABLE("hash", u64, struct policy_parameters, parameters, 1024, NO_PREALLOC);

/* key: kind, policy and prefix; value: segments. Written by the service, read here. */
BPF_F_TABLE("lpm_trie", struct prefix_key, u32, prefixes, 65536, NO_PREALLOC);

/* key: slot * OPTION_EVENTS + event; value: how often. Written here, read by the service. */
BPF_PERCPU_ARRAY(option_counters, u64, OPTION_SLOTS *OPTION_EVENTS);

static __always_inline void count(u32 slot, enum option_event event)
{
	int index = slot * OPTION_EVENTS + event;
	u64 *value = option_counters.lookup(&index);

	if (value)
		(*value)++;
}

static __always_inline struct option_state *state_of(struct bpf_sock_ops *skops, u64 flags)
{
	struct bpf_sock *sk = skops->sk;

	return sk ? states.sk_storage_get(sk, 0, flags) : 0;
}

static __always_inline struct policy_parameters *find_parameters(void)
{
	u64 policy = POLICY_ID;

	return parameters.lookup(&policy);
}

static __always_inline u32 option_prefix(struct option *o, enum prefix_kind kind)
{
	u64 policy = POLICY_ID;
	struct prefix_key key = {
		.length = PREFIX_FIXED_BITS + 128,
		.kind = kind,
		.policy = { policy, policy >> 32 },
	};
	u32 *value;

	copy_ip(key.ip, FIELD(o->skops, family), &o->skops->remote_ip4, o->skops->remote_ip6);
	value = prefixes.lookup(&key);
	return value ? *value : 0;
}

int options(struct bpf_sock_ops *skops)
{
	struct option o = { .skops = skops };

	switch (FIELD(skops, op)) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		start_plugins(&o);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
	case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
	case BPF_SOCK_OPS_RTT_CB:
		if (PLUGINS)
			handle_callback(&o);
		break;
	}
	return 1;
}
