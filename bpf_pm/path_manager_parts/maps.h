/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts do with the maps; path_manager.c has the maps and the functions. */
#ifndef MPTCP_PM_PATH_MANAGER_MAPS_H
#define MPTCP_PM_PATH_MANAGER_MAPS_H

#include "path_manager.h"

/* Key of accepted_peers; pm/linux/bpf/path_manager_maps.py has the same. */
struct accepted_peer {
	u32 length; /* bits from `policy` on */
	u32 policy[2]; /* low half, high half */
	u32 ip[4]; /* network order, IPv4 is ::ffff:a.b.c.d */
};

#define UP_ADDRESSES 16384 /* pm/linux/bpf/local_address_maps.py has the same */

/* Key of up_addresses. */
struct up_address {
	u32 ip[4]; /* network order, IPv4 is ::ffff:a.b.c.d */
};

/* Value of up_addresses; pm/linux/bpf/local_address_maps.py has the same. */
struct up {
	u32 ifindex;
	u32 generation; /* when a program last saw it up; 0: the service did */
};

#define INTERFACES 4096 /* pm/linux/bpf/local_address_maps.py has the same */

/* Value of interfaces; pm/linux/bpf/local_address_maps.py has the same. */
struct interface {
	u32 flags; /* enum interface_flag */
	u32 generation; /* for which `kinds` holds */
	u32 kinds; /* enum address_kind of addresses in slots */
};

enum interface_flag {
	INTERFACE_USABLE = 1 << 0,
	INTERFACE_BACKUP = 1 << 1,
	INTERFACE_LINK_LOCAL = 1 << 2, /* its link-local addresses, too */
};

#define FOUND 32 /* addresses of the host that the programs look at */

/* Value of looks; pm/linux/bpf/local_address_maps.py has the same. */
struct look {
	u32 follow; /* the service wrote what is needed to follow changes */
	u32 generation; /* of addresses and links; 0: never looked */
	u32 partial; /* there were more addresses than FOUND */
	u32 free; /* a set of slots; while looking */
	u32 candidate; /* place of an address that gets one; FOUND: none */
	u32 pad[3];
	struct bpf_mptcp_addr found[FOUND];
};

#define SLOT_ALLOWED 1 /* scope_id in local_addr_map; the service has the same */
#define SLOT_IDS 240 /* the id of slot 0 where a program gives it out */
#define SLOT_LOCK_NS 1000000000ULL /* nobody gives out slots for so long */

/* Key of remote_prefixes; pm/linux/bpf/path_manager_maps.py has the same. */
struct remote_prefix {
	u32 length; /* bits from `ip` on */
	u32 ip[4]; /* network order, IPv4 is ::ffff:a.b.c.d */
};

/* Value of remote_prefixes; pm/policies/remote_addresses.py has the same. */
enum remote_flag {
	REMOTE_FLAG_ALLOWED = 1 << 0,
	REMOTE_FLAG_LINK_LOCAL = 1 << 1, /* only for sessions between link-local addresses */
	REMOTE_FLAG_PRIVATE = 1 << 2, /* only for sessions whose first remote is private too */
};

#define ROUTES 4096 /* pm/linux/bpf/path_manager_maps.py has the same */

/* Key of routes; pm/linux/bpf/path_manager_maps.py has the same. */
struct destination {
	u32 ip[4]; /* network order, IPv4 is ::ffff:a.b.c.d */
	u32 mark;
	u32 port; /* network order, in the low half */
};

/* What the host's routing says of a destination: sets of slots, as in `struct remote`. */
struct route {
	u32 unroutable;
	u32 bound;
};

/* Key of claim_counters; pm/linux/bpf/path_manager_maps.py has the same. */
enum claim_counter {
	CLAIM_COUNTER_CLAIMED,
	CLAIM_COUNTER_CLAIM_FAILED, /* no room in the map */
	CLAIM_COUNTER_JOINS_REFUSED,
	CLAIM_COUNTERS,
};

static __always_inline void count(enum claim_counter counter);

/* What is in a slot of local_addr_map, usable or not. */
static __always_inline struct bpf_mptcp_addr *slot_at(u32 slot);

static __always_inline struct look *last_look(void);

/* What up_addresses has for an address, or 0. */
static __always_inline struct up *up_of(const struct bpf_mptcp_addr *address);

static __always_inline void note_up(const struct bpf_mptcp_addr *address, struct up *up);

/* 0: the service does not know the interface. */
static __always_inline struct interface *interface_at(u32 ifindex);

/* Whether slots may be given out now; unlock_slots() follows then. */
static __always_inline bool lock_slots(void);
static __always_inline void unlock_slots(void);

/* 0: the service does not know the destination. */
static __always_inline const struct route *route_to(struct destination *destination);

/* The parameters of the program's policy; 0: it has none any more. */
static __always_inline const struct path_parameters *find_parameters(void);

/* The flags of the longest prefix that has the address; 0: none has it. */
static __always_inline u32 remote_flags(const struct bpf_mptcp_addr *address);

static __always_inline bool is_accepted_peer(struct accepted_peer *peer);

/* Add a blank claim for the session with this local token; 0: there is no room. */
static __always_inline struct claim *add_claim(u32 token);

/* The claim of the session with this local token; 0: the program's policy has none. */
static __always_inline struct claim *find_claim(u32 token);

static __always_inline void delete_claim(u32 token);

/* Whether the program `endpoints` of an inner cgroup leaves the session to the kernel's path manager. */
static __always_inline bool is_left_alone(struct bpf_sock_ops *skops);

#endif
