/* SPDX-License-Identifier: GPL-2.0-only */
/* What each callback of a socket does. */
#ifndef MPTCP_PM_OPTION_CALLBACKS_H
#define MPTCP_PM_OPTION_CALLBACKS_H

#include "receive.h"
#include "send.h"

#define CHECK_LENGTH(number, name, o)                                             \
	_Static_assert(name##_LENGTH > name##_HEADER, #name "_LENGTH: no value"); \
	_Static_assert(name##_LENGTH <= OPTION_MAX, #name "_LENGTH: more than 16 bytes");

EACH_PLUGIN(CHECK_LENGTH, )

#define START(number, name, o)                                                          \
	if (select_plugin(o, number, ~0u)) {                                            \
		(o)->state->sending |= option_settings(o)->sends ? 1 << number : 0;     \
		(o)->state->listening |= option_settings(o)->listens ? 1 << number : 0; \
		report(o, name##_start(o));                                             \
	}

/* The handshake is over. Its last packet may have options already. */
static __always_inline void start_plugins(struct option *o)
{
	if (bpf_get_netns_cookie(o->skops) != NETNS_COOKIE)
		return;
	o->state = state_of(o->skops, BPF_SK_STORAGE_GET_F_CREATE);
	if (!o->state || o->state->record.policy)
		return;
	o->state->record.policy = POLICY_ID;
	if (!PLUGINS)
		return;
	o->parameters = find_parameters();
	if (!o->parameters)
		return;
	EACH_PLUGIN(START, o)
	receive_options(o);
	update_callback_flags(o);
}

#define RTT_SAMPLE(number, name, o)                       \
	if (select_plugin(o, number, (o)->state->timing)) \
		report(o, name##_rtt(o));

/* RTT_CB: a round trip was measured. */
static __always_inline void sample_rtt(struct option *o)
{
	EACH_TIMED_PLUGIN(RTT_SAMPLE, o)
	update_callback_flags(o);
}

/* Any later callback; of sockets that had their handshake in this policy only. */
static __always_inline void handle_callback(struct option *o)
{
	struct option_state *state = state_of(o->skops, 0);
	u32 op = FIELD(o->skops, op);

	if (!state || state->record.policy != POLICY_ID)
		return;
	o->state = state;
	/* A reload may have removed plugins. */
	state->sending &= PLUGINS;
	state->listening &= PLUGINS;
	state->timing &= PLUGINS;
	if (op == BPF_SOCK_OPS_HDR_OPT_LEN_CB) {
		reserve_space(o);
		return;
	}
	o->parameters = find_parameters();
	if (!o->parameters)
		return;
	if (op == BPF_SOCK_OPS_WRITE_HDR_OPT_CB)
		write_options(o);
	else if (op == BPF_SOCK_OPS_PARSE_HDR_OPT_CB)
		parse_packet(o);
	else
		sample_rtt(o);
}

#endif
