/* SPDX-License-Identifier: GPL-2.0-only */
/* Options of this end: reserve their space in a packet, write them, stop when the peer has them. */
#ifndef MPTCP_PM_OPTION_SEND_H
#define MPTCP_PM_OPTION_SEND_H

#include "callback_flags.h"
#include "plugins.h"
#include "report.h"

/* Stop sending after that many packets that the peer has not acknowledged: */
#define SILENT_AFTER_COPIES 32 /* with options */
#define SILENT_AFTER_PACKETS 256 /* in all: those of MPTCP may never have room */

/* Before a packet is built: stop sending options that the peer has, and those sent too often. */
static __always_inline void stop_sending(struct option *o)
{
	struct option_state *state = o->state;

	if (state->outstanding && (s32)(FIELD(o->skops, snd_una) - state->sequence) > 0) {
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
		update_callback_flags(o);
}

#define RESERVE(number, name, o, candidates, is_packet)                 \
	if (select_plugin(o, number, candidates)) {                     \
		if (!bpf_reserve_hdr_opt((o)->skops, name##_LENGTH, 0)) \
			(o)->state->reserved |= 1 << number;            \
		else if (is_packet)                                     \
			report(o, OPTION_NO_SPACE);                     \
	}

/* HDR_OPT_LEN_CB: the length of options, in a packet or in those to come (tcp_current_mss). */
static __always_inline void reserve_space(struct option *o)
{
	struct option_state *state = o->state;
	bool is_packet = FIELD(o->skops, args[0]) != BPF_WRITE_HDR_TCP_CURRENT_MSS;
	u32 candidates;

	state->reserved = 0;
	if (is_packet) {
		state->with_data = FIELD(o->skops, skb_len) > 0;
		stop_sending(o);
	}
	/* Where not all fit, those that were never sent go first. */
	candidates = state->sending & ~state->record.sent;
	EACH_PLUGIN(RESERVE, o, candidates, is_packet)
	candidates = state->sending & state->record.sent;
	EACH_PLUGIN(RESERVE, o, candidates, is_packet)
}

#define WRITE(number, name, o, written)                                       \
	if (select_plugin(o, number, (o)->state->reserved)) {                 \
		u8 wire[OPTION_MAX] = {};                                     \
                                                                              \
		*(u32 *)wire = *(u32 *)option_settings(o)->search;            \
		wire[1] = name##_LENGTH;                                      \
		name##_compose(o, wire + name##_HEADER);                      \
		if (!bpf_store_hdr_opt((o)->skops, wire, name##_LENGTH, 0)) { \
			written |= 1 << number;                               \
			report(o, OPTION_SENT);                               \
		}                                                             \
	}

/* WRITE_HDR_OPT_CB: the options that have space. */
static __always_inline void write_options(struct option *o)
{
	struct option_state *state = o->state;
	u32 written = 0;

	EACH_PLUGIN(WRITE, o, written)
	state->copies++;
	if (state->with_data && !state->outstanding) {
		state->outstanding = written;
		state->sequence = FIELD(o->skops, snd_nxt);
	}
}

#endif
