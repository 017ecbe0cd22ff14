// SPDX-License-Identifier: GPL-2.0-only
/*
 * TCP-option plugins: a sock_ops program for the cgroups of one policy. It calls
 * the plugins of the policy, and owns what they share: option space, callback
 * flags and the counters. Beside the classifier, not within: a policy without
 * options has nothing of this.
 *
 * The loader says which plugins there are: EACH_PLUGIN(X) is X(slot, name)...,
 * TIMED_PLUGINS(X) those with NAME_rtt(); their files are included before this
 * one. What a policy does not use, the verifier removes, since PLUGINS is constant.
 */
#include "option.h"
#include "placeholder.h"

#define AF_INET6 10
#define SILENT_AFTER_COPIES 32 /* packets with options, without the peer's acknowledgement */
#define SILENT_AFTER_PACKETS 256 /* in all: those of MPTCP may never have room */
#define DEAF_AFTER_SEGMENTS 256 /* received; MPTCP's own option calls us for each of them */

#define PLUGINS \
	placeholder(0x6d707463705f706c) /* a bit per slot; 0: only keep outer policies away */

struct prefix_key {
	u32 length; /* bits from `kind` on */
	u32 kind;
	u32 policy[2];
	u32 ip[4]; /* network order, IPv4 is ::ffff:a.b.c.d */
};

#define PREFIX_FIXED_BITS (8 * (sizeof(struct prefix_key) - sizeof(u32) * 5))

/*
 * Of each socket in a policy with options, or below one: the first, innermost, to see it has it.
 * The service reads it by sock_diag.
 */
BPF_SK_STORAGE(states, struct option_state);

/* key: policy. Written by the service. */
BPF_F_TABLE("hash", u64, struct policy_parameters, parameters, 1024, 1 /* NO_PREALLOC */);

/* key: kind, policy and prefix; value: segments. Written by the service. */
BPF_F_TABLE("lpm_trie", struct prefix_key, u32, prefixes, 65536, 1 /* NO_PREALLOC */);

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

static __always_inline bool find_parameters(struct option *o)
{
	u64 policy = POLICY_ID;

	o->parameters = parameters.lookup(&policy);
	return o->parameters;
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

	if (o->skops->family == AF_INET6) {
		key.ip[0] = FIELD(o, remote_ip6[0]);
		key.ip[1] = FIELD(o, remote_ip6[1]);
		key.ip[2] = FIELD(o, remote_ip6[2]);
		key.ip[3] = FIELD(o, remote_ip6[3]);
		/* Or both branches share a load from a computed offset, which is refused. */
		asm volatile("" ::: "memory");
	} else {
		key.ip[2] = bpf_htonl(0xffff);
		key.ip[3] = FIELD(o, remote_ip4);
	}
	value = prefixes.lookup(&key);
	return value ? *value : 0;
}

static __always_inline void report(struct option *o, enum option_event event)
{
	struct option_record *record = &o->state->record;
	u32 bit = 1 << o->slot;

	if (event == OPTION_NOTHING)
		return;
	count(o->slot, event);
	if (event >= OPTION_MALFORMED) {
		record->refused |= bit;
		record->reason[o->slot & (OPTION_SLOTS - 1)] = event;
	} else if (event == OPTION_APPLIED) {
		record->applied |= bit;
	} else if (event == OPTION_RECEIVED) {
		record->received |= bit;
	} else if (event == OPTION_SENT) {
		record->sent |= bit;
	}
}

/* Ask for the callbacks that the plugins still need; give back only those that we asked for. */
static __always_inline void settle(struct option *o)
{
	struct option_state *state = o->state;
	u32 now = FIELD(o, bpf_sock_ops_cb_flags);
	u32 wanted = 0, flags;

	if (state->sending)
		wanted |= BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
	if (state->listening)
		wanted |= BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG;
	if (state->timing)
		wanted |= BPF_SOCK_OPS_RTT_CB_FLAG;
	flags = (now | wanted) & ~(state->own_flags & ~wanted);
	state->own_flags = (state->own_flags | (wanted & ~now)) & wanted;
	if (flags != now)
		bpf_sock_ops_cb_flags_set(o->skops, flags);
}

/* Look for the option in the packet that was received. Counts it, and what is no such option. */
static __always_inline bool load(struct option *o, u8 *wire, u32 length)
{
	long found;

	*(u32 *)wire = *(u32 *)option_settings(o)->search;
	found = bpf_load_hdr_opt(o->skops, wire, length, 0);
	if (found == length) {
		report(o, OPTION_RECEIVED);
		return true;
	}
	/* -ENOSPC: it is longer than it can be. */
	if (found > 0 || found == -28)
		report(o, OPTION_MALFORMED);
	return false;
}

/* The macros below run for each plugin; `o` is the option at hand, the rest is as they find it. */

#define RECEIVE(number, name)                                               \
	o->slot = number;                                                   \
	if (PLUGINS & 1 << number && o->state->listening & 1 << number) {   \
		u8 wire[OPTION_MAX] = {};                                   \
                                                                            \
		if (load(o, wire, name##_LENGTH)) {                         \
			seen = true;                                        \
			report(o, name##_receive(o, wire + name##_HEADER)); \
		}                                                           \
	}

static __always_inline bool receive(struct option *o)
{
	bool seen = false;

	EACH_PLUGIN(RECEIVE)
	return seen;
}

#define START(number, name)                                                           \
	o->slot = number;                                                             \
	if (PLUGINS & 1 << number) {                                                  \
		o->state->sending |= option_settings(o)->sends ? 1 << number : 0;     \
		o->state->listening |= option_settings(o)->listens ? 1 << number : 0; \
		report(o, name##_start(o));                                           \
	}

/* The handshake is over; its last packet may have options already. */
static __always_inline void establish(struct option *o)
{
	if (bpf_get_netns_cookie(o->skops) != NETNS_COOKIE)
		return;
	o->state = state_of(o->skops, BPF_SK_STORAGE_GET_F_CREATE);
	if (!o->state || o->state->record.policy)
		return;
	o->state->record.policy = POLICY_ID;
	if (!PLUGINS || !find_parameters(o))
		return;
	EACH_PLUGIN(START)
	receive(o);
	settle(o);
}

/* Before a packet is built: options that the peer has are done with, and those sent too often. */
static __always_inline void confirm(struct option *o)
{
	struct option_state *state = o->state;

	if (state->outstanding && (s32)(FIELD(o, snd_una) - state->sequence) > 0) {
		state->sending &= ~state->outstanding;
		state->outstanding = 0;
	}
	if (state->packets++ >= SILENT_AFTER_PACKETS || state->copies >= SILENT_AFTER_COPIES) {
#pragma unroll
		for (o->slot = 0; o->slot < OPTION_SLOTS; o->slot++) {
			if (state->sending & 1 << o->slot)
				report(o, OPTION_UNCONFIRMED);
		}
		state->sending = 0;
	}
	if (!state->sending)
		settle(o);
}

#define RESERVE(number, name)                                         \
	o->slot = number;                                             \
	if (PLUGINS & 1 << number && candidates & 1 << number) {      \
		if (!bpf_reserve_hdr_opt(o->skops, name##_LENGTH, 0)) \
			o->state->reserved |= 1 << number;            \
		else if (is_packet)                                   \
			report(o, OPTION_NO_SPACE);                   \
	}

/* Length of the header: of a packet, or of those to come (tcp_current_mss). */
static __always_inline void reserve(struct option *o)
{
	struct option_state *state = o->state;
	bool is_packet = FIELD(o, args[0]) != BPF_WRITE_HDR_TCP_CURRENT_MSS;
	u32 candidates;

	state->reserved = 0;
	if (is_packet) {
		state->with_data = FIELD(o, skb_len) > 0;
		confirm(o);
	}
	/* Where not all fit, those that were never sent go first. */
	candidates = state->sending & ~state->record.sent;
	EACH_PLUGIN(RESERVE)
	candidates = state->sending & state->record.sent;
	EACH_PLUGIN(RESERVE)
}

#define WRITE(number, name)                                                 \
	o->slot = number;                                                   \
	if (PLUGINS & 1 << number && o->state->reserved & 1 << number) {    \
		u8 wire[OPTION_MAX] = {};                                   \
                                                                            \
		*(u32 *)wire = *(u32 *)option_settings(o)->search;          \
		wire[1] = name##_LENGTH;                                    \
		name##_compose(o, wire + name##_HEADER);                    \
		if (!bpf_store_hdr_opt(o->skops, wire, name##_LENGTH, 0)) { \
			written |= 1 << number;                             \
			report(o, OPTION_SENT);                             \
		}                                                           \
	}

static __always_inline void write(struct option *o)
{
	struct option_state *state = o->state;
	u32 written = 0;

	EACH_PLUGIN(WRITE)
	state->copies++;
	if (state->with_data && !state->outstanding) {
		state->outstanding = written;
		state->sequence = FIELD(o, snd_nxt);
	}
}

static __always_inline void parse(struct option *o)
{
	if (!receive(o) && FIELD(o, segs_in) > DEAF_AFTER_SEGMENTS)
		o->state->listening = 0;
	settle(o);
}

#define RTT(number, name)                                            \
	o->slot = number;                                            \
	if (PLUGINS & 1 << number && o->state->timing & 1 << number) \
		report(o, name##_rtt(o));

static __always_inline void rtt(struct option *o)
{
	TIMED_PLUGINS(RTT)
	settle(o);
}

/* Of a socket that had its handshake in this policy. */
static __always_inline void attend(struct option *o)
{
	struct option_state *state = state_of(o->skops, 0);

	if (!state || state->record.policy != POLICY_ID)
		return;
	o->state = state;
	/* Plugins may have gone with a reload. */
	state->sending &= PLUGINS;
	state->listening &= PLUGINS;
	state->timing &= PLUGINS;
	if (o->skops->op == BPF_SOCK_OPS_HDR_OPT_LEN_CB)
		reserve(o);
	else if (!find_parameters(o))
		return;
	else if (o->skops->op == BPF_SOCK_OPS_WRITE_HDR_OPT_CB)
		write(o);
	else if (o->skops->op == BPF_SOCK_OPS_PARSE_HDR_OPT_CB)
		parse(o);
	else
		rtt(o);
}

int options(struct bpf_sock_ops *skops)
{
	struct option o = { .skops = skops };

	switch (skops->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		establish(&o);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
	case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
	case BPF_SOCK_OPS_RTT_CB:
		if (PLUGINS)
			attend(&o);
		break;
	}
	return 1;
}
