/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a path manager for the patched kernel sees: bpf_pm/path_managers/NAME.c includes this file and
 * defines
 *
 *	void NAME_manage(skops, claim, p)	open the subflows that are missing
 *
 * static __always_inline. It is called for a session of its policy that may have more subflows,
 * whenever something changed: at the start, when the peer announced or withdrew an address, when a local
 * address or link came or went, when a subflow was established, ended, or made a backup or no more by the
 * peer. It need not remember what it did: `claim` has the subflows that are pending and those that are
 * live. One that was closed on command stays closed, and counts as pending.
 * One that failed too often is left to the service: the pair has it as failed, or as pending.
 *
 * A remote address goes by its index in `remotes`, a local one by its slot in local_addr_map; sets of
 * slots are bits. Addresses are IPv6 throughout, IPv4 as ::ffff:a.b.c.d.
 */
#ifndef MPTCP_PM_PATH_MANAGER_H
#define MPTCP_PM_PATH_MANAGER_H

#include "claim.h"
#include "context.h"

/* A third party's parameter: PARAMETER(p, mesh_limit) is `limit` of the path manager `mesh`. */
#define PARAMETER(p, name) ((p)->value[PARAMETER_##name])

/* The usable address in a slot, or 0. Defined in path_manager_parts/locals.h. */
static __always_inline struct bpf_mptcp_addr *local_at(u32 slot);

/* Branch-free: otherwise the verifier explores each branch in every iteration of a loop. */
static __always_inline bool same_ip(const struct bpf_mptcp_addr *a, const struct bpf_mptcp_addr *b)
{
	return !((a->ip6[0] ^ b->ip6[0]) | (a->ip6[1] ^ b->ip6[1]) | (a->ip6[2] ^ b->ip6[2]) |
		 (a->ip6[3] ^ b->ip6[3]));
}

static __always_inline bool is_ip4(const struct bpf_mptcp_addr *address)
{
	return !(address->ip6[0] | address->ip6[1] | (address->ip6[2] ^ bpf_htonl(0xffff)));
}

/* Whether it is in fe80::/10, and means something on its own link only; 0 or 1. */
static __always_inline u32 is_link_local(const struct bpf_mptcp_addr *address)
{
	return is_zero(bpf_ntohl(address->ip6[0]) >> 22 ^ 0xfe80 >> 6);
}

static __always_inline struct remote *remote_at(struct claim *claim, u32 remote)
{
	return &claim->remotes[remote & (REMOTES - 1)];
}

/* Whether the session has so many remotes: loops over them end behind the last. */
static __always_inline bool is_known(struct claim *claim, u32 remote)
{
	return remote_at(claim, remote)->address.family;
}

/* The slots from which a remote can be reached. */
static __always_inline u32 slots_to(struct claim *claim, u32 remote)
{
	struct remote *to = remote_at(claim, remote);

	if (remote < claim->unreachable || !is_known(claim, remote))
		return 0;
	if (is_link_local(&to->address))
		return claim->usable_link_local;
	return (is_ip4(&to->address) ? claim->usable_ip4 : claim->usable_ip6) & ~to->unroutable;
}

static __always_inline struct pair *pair_at(struct claim *claim, u32 remote, u32 slot)
{
	u32 other = is_zero(slot ^ claim->initial_slot) - 1; /* 0 for INITIAL, else all bits */

	return &remote_at(claim, remote)->pairs[1 + (slot & (LOCALS - 1)) & other];
}

static __always_inline struct pair *initial_pair(struct claim *claim)
{
	return &claim->remotes[INITIAL].pairs[INITIAL];
}

/* How many subflows there are or will be: the pair's part of `total`. */
static __always_inline u32 counted(const struct pair *pair)
{
	return pair->pending + pair->live;
}

/* The same with those that are left to the service: how many are not missing. */
static __always_inline u32 subflows(const struct pair *pair)
{
	return counted(pair) + pair->failed;
}

static __always_inline bool count_pending(struct claim *claim, struct pair *pair, long error)
{
	if (error)
		return false;
	pair->pending++;
	claim->total++;
	claim->tokens--;
	claim->opens_full_ns += claim->open_interval_ns;
	return true;
}

/*
 * Open one more subflow like the initial one; false where the kernel refuses, the peer can not be
 * reached there, or the local address is lost. The application chose that address: it need not be usable.
 */
static __always_inline bool open_initial(struct bpf_sock_ops *skops, struct claim *claim)
{
	struct bpf_mptcp_addr src = { .ifindex = claim->ifindex };
	struct remote *to = &claim->remotes[INITIAL];
	u32 slot = 1 << claim->initial_slot;

	if (claim->unreachable || claim->lost || to->unroutable & slot || !claim->tokens)
		return false;
	if (!is_link_local(&claim->local) && !(to->bound & slot))
		return count_pending(claim, initial_pair(claim),
				     bpf_open_subflow(skops, 0, 0, 0, 0));
	src.family = claim->local.family;
	__builtin_memcpy(src.ip6, claim->local.ip6, sizeof(src.ip6));
	return count_pending(claim, initial_pair(claim),
			     bpf_open_subflow(skops, &src, sizeof(src), 0, 0));
}

/* Open one more subflow, as a backup or not; false where the kernel refuses. */
static __always_inline bool open_subflow(struct bpf_sock_ops *skops, struct claim *claim,
					 u32 remote, u32 slot, bool backup)
{
	struct bpf_mptcp_addr *local = local_at(slot), src;
	struct remote *to = remote_at(claim, remote);

	if (!local || !claim->tokens)
		return false;
	src = *local;
	src.scope_id = 0;
	/* Unless it is link-local, or needs to be bound, the host's routing chooses the interface. */
	src.ifindex *= is_link_local(&src) | (to->bound >> slot & 1);
	src.flags = backup ? BPF_MPTCP_ADDR_BACKUP : 0;
	if (slot == claim->initial_slot)
		src.id = 0; /* its only id */
	return count_pending(
		claim, pair_at(claim, remote, slot),
		bpf_open_subflow(skops, &src, sizeof(src), &to->address, sizeof(to->address)));
}

/* Set or clear the backup flag of the subflows between two addresses; false where the kernel refuses. */
static __always_inline bool set_backup(struct bpf_sock_ops *skops, struct claim *claim, u32 remote,
				       u32 slot, bool backup)
{
	struct bpf_mptcp_addr *local = local_at(slot), src, dst = remote_at(claim, remote)->address;

	if (!local)
		return false;
	src = *local;
	src.scope_id = 0;
	src.flags = BPF_MPTCP_ADDR_PRIO | (backup ? BPF_MPTCP_ADDR_BACKUP : 0);
	src.ifindex = 0;
	/* The addresses tell which: the peer's id for its own may differ from the one known here. */
	src.id = 0;
	dst.id = 0;
	return !bpf_open_subflow(skops, &src, sizeof(src), &dst, sizeof(dst));
}

#endif
