// SPDX-License-Identifier: GPL-2.0-only
/*
 * An option plugin of a third party: the sender tells its peer a service level,
 * the receiver marks what it sends accordingly (IP_TOS, or IPV6_TCLASS).
 */
#include "option.h"

#define level_HEADER OPTION_EXPERIMENTAL
#define level_LENGTH (level_HEADER + 1)
#define IPPROTO_IP 0
#define IP_TOS 1
#define IPPROTO_IPV6 41
#define IPV6_TCLASS 67

static __always_inline enum option_event level_start(struct option *o)
{
	return OPTION_NOTHING;
}

static __always_inline void level_compose(struct option *o, u8 *value)
{
	value[0] = PARAMETER(o, level_level);
}

static __always_inline enum option_event level_receive(struct option *o, const u8 *value)
{
	u32 class = value[0] << 5;
	long refused;

	if (value[0] > 7)
		return OPTION_MALFORMED;
	option_stop_listening(o);
	if (value[0] > PARAMETER(o, level_highest))
		return OPTION_NOT_ALLOWED;
	/* An IPv6 socket may have an IPv4 peer: set both. */
	refused = bpf_setsockopt(o->skops, IPPROTO_IP, IP_TOS, &class, sizeof(class));
	if (o->skops->family == AF_INET6)
		refused =
			bpf_setsockopt(o->skops, IPPROTO_IPV6, IPV6_TCLASS, &class, sizeof(class));
	return refused ? OPTION_KERNEL : option_applied(o, class);
}
