// SPDX-License-Identifier: GPL-2.0-only
/*
 * TCP User Timeout option (RFC 5482): kind 28, a granularity bit (minutes or
 * seconds) and 15 bits. Sent, it tells how long this end keeps unacknowledged
 * data; received, it makes this end wait as long as the peer does, within limits
 * (section 3.1). A timeout that the application has set stays (CHANGEABLE).
 */
#include "option.h"

#define user_timeout_HEADER OPTION_ASSIGNED
#define user_timeout_LENGTH (user_timeout_HEADER + 2)
#define MINUTES 0x8000
#define MS_MAX (0x7fff * 60u * 1000)

struct user_timeout_parameters {
	u32 advertised_ms; /* ADV_UTO; 0: this end advertises nothing */
	u32 lower_ms; /* L_LIMIT */
	u32 upper_ms; /* U_LIMIT */
};

/* The first word of the private state is the timeout set here, to tell it from the application's. */
static __always_inline enum option_event user_timeout_set(struct option *o, u32 ms)
{
	if (option_get(o, TCP_USER_TIMEOUT) == ms)
		return OPTION_NOTHING;
	if (option_set(o, TCP_USER_TIMEOUT, ms))
		return OPTION_KERNEL;
	option_private(o)[0] = ms;
	return option_applied(o, option_get(o, TCP_USER_TIMEOUT));
}

static __always_inline enum option_event user_timeout_start(struct option *o)
{
	struct user_timeout_parameters *p = option_parameters_of(o);

	if (!p->advertised_ms || option_get(o, TCP_USER_TIMEOUT))
		return OPTION_NOTHING;
	return user_timeout_set(o, p->advertised_ms);
}

static __always_inline void user_timeout_compose(struct option *o, u8 *value)
{
	struct user_timeout_parameters *p = option_parameters_of(o);
	u32 ms = option_get(o, TCP_USER_TIMEOUT);
	u32 seconds, wire;

	/* Tell the application's own timeout, but not one adopted from the peer: the peer knows it. */
	if (!ms || ms == option_private(o)[0] || ms > MS_MAX)
		ms = p->advertised_ms;
	seconds = (ms + 999) / 1000;
	wire = seconds < MINUTES ? seconds : MINUTES | ((seconds + 59) / 60);
	value[0] = wire >> 8;
	value[1] = wire;
}

static __always_inline enum option_event user_timeout_receive(struct option *o, const u8 *value)
{
	struct user_timeout_parameters *p = option_parameters_of(o);
	u32 wire = value[0] << 8 | value[1];
	u32 ms = (wire & (MINUTES - 1)) * (wire & MINUTES ? 60u * 1000 : 1000);
	u32 own = option_get(o, TCP_USER_TIMEOUT);

	if (!ms)
		return OPTION_MALFORMED;
	if (own && own != option_private(o)[0])
		return OPTION_APPLICATION;
	if (ms < p->advertised_ms)
		ms = p->advertised_ms;
	if (ms < p->lower_ms)
		ms = p->lower_ms;
	if (ms > p->upper_ms)
		ms = p->upper_ms;
	return user_timeout_set(o, ms);
}
