/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts do with the maps; options.c has the maps and the functions. */
#ifndef MPTCP_PM_OPTION_MAPS_H
#define MPTCP_PM_OPTION_MAPS_H

#include "option.h"

/* Key of prefixes; pm/linux/bpf/tcp_option_layouts.py has the same. */
struct prefix_key {
	u32 length; /* bits from `kind` on */
	u32 kind; /* enum prefix_kind */
	u32 policy[2]; /* low half, high half */
	u32 ip[4]; /* network order, IPv4 is ::ffff:a.b.c.d */
};

#define PREFIX_FIXED_BITS (8 * (sizeof(struct prefix_key) - sizeof(u32) * 5))

/* Count an event of the plugin in a slot. */
static __always_inline void count(u32 slot, enum option_event event);

/* The state of the callback's socket; 0: it has none, and `flags` does not ask to create it. */
static __always_inline struct option_state *state_of(struct bpf_sock_ops *skops, u64 flags);

/* The parameters of the program's policy; 0: it has none any more. */
static __always_inline struct policy_parameters *find_parameters(void);

#endif
