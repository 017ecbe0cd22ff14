/* SPDX-License-Identifier: GPL-2.0-only */
/* Options of the peer: find them in a received packet and give them to their plugins. */
#ifndef MPTCP_PM_OPTION_RECEIVE_H
#define MPTCP_PM_OPTION_RECEIVE_H

#include "callback_flags.h"
#include "plugins.h"
#include "report.h"

/*
 * Stop looking after that many received segments: MPTCP puts an option of its own into nearly every
 * packet, and each of them is a callback.
 */
#define PARSE_SEGMENT_LIMIT 256

/* Load the selected plugin's option from the received packet, and report it; false: it is not there. */
static __always_inline bool load_option(struct option *o, u8 *wire, u32 length)
{
	long loaded;

	*(u32 *)wire = *(u32 *)option_settings(o)->search;
	loaded = bpf_load_hdr_opt(o->skops, wire, length, 0);
	if (loaded == length) {
		report(o, OPTION_RECEIVED);
		return true;
	}
	/* ENOSPC: it is longer than `length`. */
	if (loaded > 0 || loaded == -ENOSPC)
		report(o, OPTION_MALFORMED);
	return false;
}

#define RECEIVE(number, name, o, seen)                                      \
	if (select_plugin(o, number, (o)->state->listening)) {              \
		u8 wire[OPTION_MAX] = {};                                   \
                                                                            \
		if (load_option(o, wire, name##_LENGTH)) {                  \
			seen = true;                                        \
			report(o, name##_receive(o, wire + name##_HEADER)); \
		}                                                           \
	}

/* Call each plugin that listens and whose option the received packet has; false: there is none. */
static __always_inline bool receive_options(struct option *o)
{
	bool seen = false;

	EACH_PLUGIN(RECEIVE, o, seen)
	return seen;
}

/* PARSE_HDR_OPT_CB: the packet has an option that the kernel does not know, or MPTCP's. */
static __always_inline void parse_packet(struct option *o)
{
	if (!receive_options(o) && FIELD(o->skops, segs_in) > PARSE_SEGMENT_LIMIT)
		o->state->listening = 0;
	update_callback_flags(o);
}

#endif
