/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a path manager for the patched kernel sees: bpf_pm/path_managers/NAME.c includes this file and
 * defines
 *
 *	void NAME_manage(skops, claim, p)	open what the session lacks
 *
 * static __always_inline. It is called for a session of its policy that may have more subflows,
 * whenever something changed: at first, when the peer announced or withdrew an address, when a subflow
 * came or went. It needs no memory of what it did: `claim` knows which subflows were asked for and
 * which are there. One that failed too often, or was closed on command, is left to the service: it
 * counts as asked for.
 *
 * Remotes and local addresses go by number: place in `remotes`, and slot of local_addr_map, a bit
 * in sets of them. Addresses are IPv6 throughout, IPv4 as ::ffff:a.b.c.d.
 */
#ifndef MPTCP_PM_PATH_MANAGER_H
#define MPTCP_PM_PATH_MANAGER_H

#include "bpf_mptcp.h"

#define LOCALS 16 /* slots of local addresses; their order is the order of opening */
#define REMOTES 8 /* of a session */
#define INITIAL 0 /* of the initial subflow: its remote address, and its pair of addresses */

/* Of a policy. Written by the service, read here; pm/linux/bpf/path_manager_maps.py has the same. */
struct path_parameters {
	u64 start_after_ns;
	u64 start_after_bytes; /* on the initial subflow, both ways */
	u32 accept_max_subflows; /* established ones, the initial included; 0: no limit */
	u32 accept_listed; /* 1: from peers in accepted_peers only */
	u32 value[8]; /* the path manager's own */
};

_Static_assert(sizeof(struct path_parameters) == 56, "pm/linux/bpf/path_manager_maps.py");

/* A third party's parameter: PARAMETER(p, mesh_limit) is `limit` of the path manager `mesh`. */
#define PARAMETER(p, name) ((p)->value[PARAMETER_##name])

/* Subflows between two addresses. */
struct pair {
	u8 asked; /* for, and not there: on the way, or left to the service */
	u8 there;
};

struct remote {
	struct bpf_mptcp_addr address; /* family 0: none, nor behind it */
	struct pair
		pairs[1 + LOCALS]; /* with the initial local address, and with that in slot n - 1 */
	u8 pad[6];
};

/* A session of ours. Written by the programs; the service reads the policy. */
struct claim {
	u64 policy;
	u64 established_ns; /* 0: not yet */
	u32 started; /* subflows may be opened */
	u32 parsing; /* we asked for each packet, to see when that is */
	u32 unreachable; /* remotes before this one: only the peer can connect */
	u32 total; /* subflows of all pairs, asked for or there */
	u32 established; /* subflows of either end */
	u32 retries;
	u32 private[2]; /* for the path manager; 0 at first */
	struct bpf_mptcp_addr local; /* of the initial subflow */
	struct remote remotes[REMOTES]; /* the initial one, and those announced, in that order */
	/* As of this callback: sets of slots, and the slot of `local`, LOCALS where it is not usable */
	u32 usable_ip4;
	u32 usable_ip6;
	u32 backups; /* marked as such */
	u32 near; /* on the interface of `local` */
	u32 initial_slot;
	u32 ip4_only; /* an IPv4 socket of the application */
};

/* The usable address in a slot, or 0. Defined in path_manager.c: BCC knows of maps only there. */
static __always_inline struct bpf_mptcp_addr *local_at(u32 slot);

/* Without branches: the verifier would follow each of them in every iteration of a loop. */
static __always_inline bool same_ip(const struct bpf_mptcp_addr *a, const struct bpf_mptcp_addr *b)
{
	return !((a->ip6[0] ^ b->ip6[0]) | (a->ip6[1] ^ b->ip6[1]) | (a->ip6[2] ^ b->ip6[2]) |
		 (a->ip6[3] ^ b->ip6[3]));
}

static __always_inline bool is_ip4(const struct bpf_mptcp_addr *address)
{
	return !(address->ip6[0] | address->ip6[1] | (address->ip6[2] ^ bpf_htonl(0xffff)));
}

static __always_inline struct remote *remote_at(struct claim *claim, u32 remote)
{
	return &claim->remotes[remote & (REMOTES - 1)];
}

/* The slots from which a remote can be reached. */
static __always_inline u32 slots_to(struct claim *claim, u32 remote)
{
	struct remote *to = remote_at(claim, remote);

	if (remote < claim->unreachable || !to->address.family)
		return 0;
	return is_ip4(&to->address) ? claim->usable_ip4 : claim->usable_ip6;
}

static __always_inline struct pair *pair_at(struct claim *claim, u32 remote, u32 slot)
{
	u32 pair = slot == claim->initial_slot ? INITIAL : 1 + (slot & (LOCALS - 1));

	return &remote_at(claim, remote)->pairs[pair];
}

static __always_inline struct pair *initial_pair(struct claim *claim)
{
	return &claim->remotes[INITIAL].pairs[INITIAL];
}

/* How many there are, or will be. */
static __always_inline u32 subflows(const struct pair *pair)
{
	return pair->asked + pair->there;
}

static __always_inline bool count_asked(struct claim *claim, struct pair *pair, long error)
{
	if (error)
		return false;
	pair->asked++;
	claim->total++;
	return true;
}

/* Open one more subflow like the initial one; false where the kernel refuses. */
static __always_inline bool open_initial(struct bpf_sock_ops *skops, struct claim *claim)
{
	return !claim->unreachable &&
	       count_asked(claim, initial_pair(claim), bpf_open_subflow(skops, 0, 0, 0, 0));
}

/* Open one more subflow, as a backup or not; false where the kernel refuses. */
static __always_inline bool open_subflow(struct bpf_sock_ops *skops, struct claim *claim,
					 u32 remote, u32 slot, bool backup)
{
	struct bpf_mptcp_addr *local = local_at(slot), src;
	struct remote *to = remote_at(claim, remote);

	if (!local)
		return false;
	src = *local;
	src.ifindex = 0; /* routing is the host's business */
	src.flags = backup ? BPF_MPTCP_ADDR_BACKUP : 0;
	if (slot == claim->initial_slot)
		src.id = 0; /* it has no other */
	return count_asked(
		claim, pair_at(claim, remote, slot),
		bpf_open_subflow(skops, &src, sizeof(src), &to->address, sizeof(to->address)));
}

/* Make the subflows between two addresses backups, or no more; false where the kernel refuses. */
static __always_inline bool set_backup(struct bpf_sock_ops *skops, struct claim *claim, u32 remote,
				       u32 slot, bool backup)
{
	struct bpf_mptcp_addr *local = local_at(slot), src, dst = remote_at(claim, remote)->address;

	if (!local)
		return false;
	src = *local;
	src.flags = BPF_MPTCP_ADDR_PRIO | (backup ? BPF_MPTCP_ADDR_BACKUP : 0);
	src.ifindex = 0;
	/* The addresses say it; the peer's id for its own can differ from what we know. */
	src.id = 0;
	dst.id = 0;
	return !bpf_open_subflow(skops, &src, sizeof(src), &dst, sizeof(dst));
}

#endif
