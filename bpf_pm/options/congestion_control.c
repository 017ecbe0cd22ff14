// SPDX-License-Identifier: GPL-2.0-only
/*
 * Congestion control option: an experimental option (RFC 6994) with the id of an
 * algorithm that the sender wants its peer to use. Which name an id stands for
 * is configured, the same on both ends. The first valid request counts.
 */
#include "option.h"

#define congestion_control_HEADER OPTION_EXPERIMENTAL
#define congestion_control_LENGTH (congestion_control_HEADER + 1)
#define ALGORITHMS 16

struct algorithm {
	u8 id;
	u8 allowed;
	u8 pad[2];
	char name[TCP_CA_NAME_MAX];
};

struct congestion_control_parameters {
	u8 requested; /* id */
	u8 count; /* of algorithms */
	u8 pad[2];
	char usual[TCP_CA_NAME_MAX]; /* that of sockets whose application has chosen none */
	struct algorithm algorithms[ALGORITHMS];
};

static __always_inline enum option_event congestion_control_start(struct option *o)
{
	return OPTION_NOTHING;
}

static __always_inline void congestion_control_compose(struct option *o, u8 *value)
{
	struct congestion_control_parameters *p = option_parameters_of(o);

	value[0] = p->requested;
}

static __always_inline bool same_name(const char *a, const char *b)
{
#pragma unroll
	for (int i = 0; i < TCP_CA_NAME_MAX; i++) {
		if (a[i] != b[i])
			return false;
		if (!a[i])
			break;
	}
	return true;
}

static __always_inline enum option_event congestion_control_receive(struct option *o,
								    const u8 *value)
{
	struct congestion_control_parameters *p = option_parameters_of(o);
	u32 *index = option_private(o);
	struct algorithm *algorithm;
	char now[TCP_CA_NAME_MAX] = {};

	/*
	 * The index goes through map memory: what is read back is one number that the verifier does not
	 * know. As a known one it would be another for each turn of the loop, and adding such numbers to
	 * a pointer is prohibited without CAP_PERFMON.
	 */
	*index = ALGORITHMS;
	for (u32 i = 0; i < ALGORITHMS; i++) {
		if (i < p->count && p->algorithms[i].id == value[0])
			*index = i;
	}
	barrier();
	if (*(volatile u32 *)index >= ALGORITHMS)
		return OPTION_UNKNOWN;
	algorithm = &p->algorithms[*(volatile u32 *)index & (ALGORITHMS - 1)];
	option_stop_listening(o);
	if (!algorithm->allowed)
		return OPTION_NOT_ALLOWED;
	if (bpf_getsockopt(o->skops, SOL_TCP, TCP_CONGESTION, now, sizeof(now)))
		return OPTION_KERNEL;
	if (!same_name(now, p->usual))
		return OPTION_APPLICATION;
	if (bpf_setsockopt(o->skops, SOL_TCP, TCP_CONGESTION, algorithm->name, TCP_CA_NAME_MAX))
		return OPTION_KERNEL;
	return option_applied(o, value[0]);
}
