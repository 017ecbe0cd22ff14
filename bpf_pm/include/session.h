/* SPDX-License-Identifier: GPL-2.0-only */
/* What the classifier records and the service reads. pm/linux/bpf/layouts.py has the same. */
#ifndef MPTCP_PM_SESSION_H
#define MPTCP_PM_SESSION_H

/* A subflow as its own host sees it. IPv4 is ::ffff:a.b.c.d, addresses are in network order. */
struct session_key {
	u32 local[4];
	u32 remote[4];
	u16 local_port; /* host order */
	u16 remote_port; /* host order */
};

struct session_value {
	u64 cookie; /* of the socket, as SO_COOKIE */
	u64 policy; /* id that the loader gave the program */
	u32 device; /* interface that the application bound its socket to; 0: none */
	u32 mark; /* SO_MARK */
};

enum counter {
	COUNTER_CLASSIFIED, /* sessions recorded */
	COUNTER_FAILED, /* sessions the map would not take */
	COUNTER_FINALS_LOST, /* ends of subflows for which the ring buffer had no room */
	COUNTERS,
};

#endif
