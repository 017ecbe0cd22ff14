// SPDX-License-Identifier: GPL-2.0-only
/*
 * Initial window option: an experimental option (RFC 6994) with the congestion
 * window, in segments, that the sender wants its peer to start with. Honoured from
 * trusted prefixes only, up to a maximum, while nothing was sent; never from a
 * SYN, whose source address proves nothing. Rules by destination need no option.
 */
#include "option.h"

#define initial_window_HEADER OPTION_EXPERIMENTAL
#define initial_window_LENGTH (initial_window_HEADER + 2)
#define TCP_INIT_CWND 10

struct initial_window_parameters {
	u32 requested; /* segments */
	u32 has_rules; /* whether the policy has windows by destination */
};

static __always_inline enum option_event initial_window_start(struct option *o)
{
	struct initial_window_parameters *p = option_parameters_of(o);
	u32 segments = p->has_rules ? option_prefix(o, PREFIX_LOCAL) : 0;

	if (!segments)
		return OPTION_NOTHING;
	return option_set(o, TCP_BPF_IW, segments) ? OPTION_KERNEL : option_applied(o, segments);
}

static __always_inline void initial_window_compose(struct option *o, u8 *value)
{
	struct initial_window_parameters *p = option_parameters_of(o);

	value[0] = p->requested >> 8;
	value[1] = p->requested;
}

static __always_inline enum option_event initial_window_receive(struct option *o, const u8 *value)
{
	u32 segments = value[0] << 8 | value[1];
	u32 limit = option_prefix(o, PREFIX_TRUSTED);

	if (!segments)
		return OPTION_MALFORMED;
	option_stop_listening(o);
	if (!limit)
		return OPTION_UNTRUSTED;
	if (FIELD(o->skops, data_segs_out))
		return OPTION_LATE;
	if (segments > limit)
		segments = limit;
	return option_set(o, TCP_BPF_IW, segments) ? OPTION_KERNEL : option_applied(o, segments);
}
