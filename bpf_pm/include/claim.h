/* SPDX-License-Identifier: GPL-2.0-only */
/* What a path manager is told: the parameters of its policy, and the state of a session. */
#ifndef MPTCP_PM_CLAIM_H
#define MPTCP_PM_CLAIM_H

#include "bpf_mptcp.h"

#define LOCALS 16 /* slots of local addresses; their order is the order of opening */
#define REMOTES 8 /* of a session */
#define INITIAL 0 /* of the initial subflow: its remote address, and its pair of addresses */
#define PARAMETERS 8 /* of a path manager */
#define PAIRS (1 + LOCALS) /* with a remote: the initial local address, and that in slot n - 1 */

/* Parameters of a policy. Written by the service; pm/linux/bpf/path_manager_maps.py has the same. */
struct path_parameters {
	u64 start_after_ns;
	u64 start_after_bytes; /* on the initial subflow, both ways */
	u64 open_interval_ns; /* between two subflows that are opened, on average; not 0 */
	u64 open_burst_ns; /* so many intervals a session has at once */
	u32 accept_max_subflows; /* established ones, the initial included */
	u32 accept_listed; /* 1: from peers in accepted_peers only */
	u32 value[PARAMETERS]; /* the path manager's own; the last is always 0 for a third party */
};

/* Subflows between two addresses. */
struct pair {
	u8 pending; /* asked for and not established: on the way, or left to the service with its place */
	u8 live; /* established */
	u8 failed; /* left to the service, without its place: no part of `total` */
	u8 left; /* part of `live`: whose local address went, and perhaps came back */
};

struct remote {
	/*
	 * Family 0: unused, and so are all later entries. The initial one's id is that under which the
	 * peer announced it, 0 where it did not.
	 */
	struct bpf_mptcp_addr address;
	struct pair pairs[PAIRS];
	/* As of this callback; sets of slots. */
	u32 unroutable; /* the host has no route to here from them */
	u32 bound; /* a subflow from them must be bound to their interface */
};

/* A session that a program claimed. Written by the programs; the service reads the policy. */
struct claim {
	u64 policy;
	u64 established_ns; /* 0: not yet */
	u64 lingering_ns; /* when the last of them began to linger */
	u64 open_interval_ns; /* that of the policy */
	u64 opens_full_ns; /* when the token bucket for opening subflows is full again */
	u32 started; /* subflows may be opened */
	u32 parsing; /* this program asked for a callback per packet, to check the start conditions */
	u32 denied; /* the initial remote takes subflows only where it was announced */
	u32 unreachable; /* remotes before this one: 1 where `denied`, and not announced */
	u32 ifindex; /* interface of `local` as last known; 0: the service never saw `local` up */
	u32 lost; /* `local` was up, and is not now */
	u32 total; /* subflows of all pairs, pending or live */
	u32 established; /* subflows that either end opened */
	u32 failures; /* of subflows, since the start */
	u32 shunned; /* the peer made the subflow between the initial addresses a backup */
	u32 lingering; /* part of `total`: pending ones to remotes that the peer withdrew meanwhile */
	u32 device; /* interface that the application bound its socket to; 0: none */
	u32 mark; /* SO_MARK of the initial subflow */
	u32 private[2]; /* for the path manager; 0 at first */
	u32 there; /* usable slots when the host's addresses last changed, or at the start */
	u32 came; /* those that became usable with this callback */
	u32 scratch; /* within a callback: what is read back has an unknown value for the verifier */
	struct bpf_mptcp_addr local; /* of the initial subflow */
	struct remote remotes[REMOTES]; /* the initial one, and those announced, in that order */
	/* As of this callback; all up to `near` are sets of slots. */
	u32 usable_ip4;
	u32 usable_ip6;
	u32 usable_link_local; /* on the interface of `local`: the peer's others are on other links */
	u32 backups; /* marked as backup */
	u32 near; /* on the interface of `local`, also once `local` is gone */
	u32 initial_slot; /* the slot of `local`; LOCALS where it is not usable */
	u32 ip4_only; /* an IPv4 socket of the application */
	u32 itself; /* the peer is this host: all paths are one */
	u32 tokens; /* subflows that may be opened in this callback */
};

#endif
