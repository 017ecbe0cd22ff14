// SPDX-License-Identifier: GPL-2.0-only
/*
 * Delayed ACK option: an experimental option (RFC 6994) with how long its peer
 * may delay an ACK, in 64ths of the minimum RTT, and how many full segments make
 * it send one at once. The receiver caps its delayed-ACK timer, again as its
 * minimum RTT settles. The kernel still ACKs as usual at the start, out of order
 * and for retransmissions, and a segment with PSH that no other follows within 5 %
 * of the minimum RTT or 1 ms; an ACK covers at most a 16th of what came since the
 * sender started. Its limits are two jiffies and 200 ms.
 */
#include "option.h"

#define delayed_ack_HEADER OPTION_EXPERIMENTAL
#define delayed_ack_LENGTH (delayed_ack_HEADER + 2)
#define FRACTION_ONE 64
#define TIMEOUT_MAX_US 200000
#define SEGMENTS_MAX 64 /* the kernel's */
#define RTT_UNKNOWN 0xffffffff
#define SETTLED 8 /* samples without a change */

struct delayed_ack_parameters {
	u8 fraction; /* asked of the peer, of FRACTION_ONE */
	u8 segments; /* asked of the peer; 0: as the kernel does */
	u8 counts_segments; /* whether this kernel has TCP_BPF_DELACK_SEGS */
	u8 pad;
	u32 least_us; /* the kernel's minimum: two jiffies */
};

/*
 * The private state: the fraction that the peer asked for << 8 | samples without a change; and the
 * timeout, in microseconds.
 */
static __always_inline enum option_event delayed_ack_apply(struct option *o)
{
	struct delayed_ack_parameters *p = option_parameters_of(o);
	u32 *private = option_private(o);
	u32 rtt_us = FIELD(o->skops, rtt_min);
	u64 timeout_us;

	if (rtt_us == RTT_UNKNOWN)
		return OPTION_NOTHING;
	timeout_us = (u64)rtt_us * (private[0] >> 8) / FRACTION_ONE;
	if (timeout_us < p->least_us)
		timeout_us = p->least_us;
	if (timeout_us > TIMEOUT_MAX_US)
		timeout_us = TIMEOUT_MAX_US;
	if (timeout_us == private[1]) {
		private[0]++;
		return OPTION_NOTHING;
	}
	private[0] &= ~0xff;
	private[1] = timeout_us;
	return option_set(o, TCP_BPF_DELACK_MAX, timeout_us) ? OPTION_KERNEL :
							       option_applied(o, timeout_us);
}

static __always_inline enum option_event delayed_ack_start(struct option *o)
{
	return OPTION_NOTHING;
}

static __always_inline void delayed_ack_compose(struct option *o, u8 *value)
{
	struct delayed_ack_parameters *p = option_parameters_of(o);

	value[0] = p->fraction;
	value[1] = p->segments;
}

static __always_inline enum option_event delayed_ack_receive(struct option *o, const u8 *value)
{
	struct delayed_ack_parameters *p = option_parameters_of(o);
	u32 segments = value[1] < SEGMENTS_MAX ? value[1] : SEGMENTS_MAX;

	if (!value[0])
		return OPTION_MALFORMED;
	option_stop_listening(o);
	if (segments && p->counts_segments && option_set(o, TCP_BPF_DELACK_SEGS, segments))
		return OPTION_KERNEL;
	option_private(o)[0] = value[0] << 8;
	option_private(o)[1] = RTT_UNKNOWN; /* no timeout is that long */
	o->state->timing |= 1 << o->slot;
	return delayed_ack_apply(o);
}

/* A round trip was measured. */
static __always_inline enum option_event delayed_ack_rtt(struct option *o)
{
	enum option_event event = delayed_ack_apply(o);

	if ((u8)option_private(o)[0] >= SETTLED)
		o->state->timing &= ~(1 << o->slot);
	return event;
}
