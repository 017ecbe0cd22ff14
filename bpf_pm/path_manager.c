// SPDX-License-Identifier: GPL-2.0-only
/*
 * Path managers for the patched kernel (docs/kernel-abi.md): sock_ops programs for the cgroups of one
 * policy. They claim sessions, know their remote addresses and subflows, wait for the policy's start
 * conditions, apply its accept rules, and call the path manager. There is a program
 * path_manager_NAME for each path manager.
 *
 * This file has the maps, and each function that calls a method of a map: BCC rewrites such calls in
 * the main file only (docs/decisions/0014-parts-of-bpf-programs.md). The rest is in
 * path_manager_parts/.
 *
 * The callbacks of a session run one after the other; only TCP's, of the initial subflow until the start,
 * can run beside one of them. A count may be off by one then, and joins that are asked for at the same time
 * may be one too many: the service opens or closes what is missing or too much because of it.
 */
#include "path_manager_parts/callbacks.h"
#include "path_manager_parts/path_managers.h"

#define NO_PREALLOC 1
/*
 * Room for sessions; one beyond stays with the kernel's path manager. The map is preallocated: in
 * softirq a burst of new sessions would find the allocator empty.
 */
#define CLAIMS 16384

/*
 * key: slot; value: a local address with id, interface and BPF_MPTCP_ADDR_BACKUP. Family 0: not
 * usable now; address and id tell whose the slot was. `scope_id` is SLOT_ALLOWED where the rules admit the
 * address. Written by the service; the family also here, and free slots (docs/decisions/0039).
 */
BPF_ARRAY(local_addr_map, struct bpf_mptcp_addr, LOCALS);

/*
 * key: a local address that is up, or was, whether the rules let it carry new subflows or not. Written
 * by the service until the programs have looked, and here. The oldest entries give way to new ones.
 */
BPF_F_TABLE("lru_hash", struct up_address, struct up, up_addresses, UP_ADDRESSES, 0);

/*
 * key: an interface; value: whether new addresses on it may carry subflows. Written by the service; what
 * is not known to it is not used. Marks are made here.
 */
BPF_F_TABLE("hash", u32, struct interface, interfaces, INTERFACES, NO_PREALLOC);

/* key: 0; value: what the programs saw when they last looked. Written here, begun by the service. */
BPF_ARRAY(looks, struct look, 1);

/* key: 0; value: since when (ns) somebody gives out slots. Written here and by the service. */
BPF_F_TABLE("hash", u32, u64, slot_lock, 1, 0);

/*
 * key: where sessions lead; value: from which slots, and how. Without an entry all slots may be tried: the
 * outcome shows. Written by the service, read here.
 */
BPF_F_TABLE("hash", struct destination, struct route, routes, ROUTES, NO_PREALLOC);

/* key: policy; value: its parameters. Written by the service, read here. */
BPF_F_TABLE("hash", u64, struct path_parameters, path_parameters, 4096, NO_PREALLOC);

/* key: policy and prefix of peers that may open subflows; value: 1. Written by the service, read here. */
BPF_F_TABLE("lpm_trie", struct accepted_peer, u32, accepted_peers, 65536, NO_PREALLOC);

/*
 * key: prefix of addresses that peers announce; value: enum remote_flag. Written by the service, read here.
 */
BPF_F_TABLE("lpm_trie", struct remote_prefix, u32, remote_prefixes, 65536, NO_PREALLOC);

/* key: local token; value: a session that a program claimed. Written here, read by the service. */
BPF_HASH(claims, u32, struct claim, CLAIMS);

/* key: enum claim_counter; value: how often. Written here, read by the service. */
BPF_PERCPU_ARRAY(claim_counters, u64, CLAIM_COUNTERS);

/* key: 0; value: a new claim, all zero, too large for the stack. Written by nobody, read here. */
BPF_ARRAY(blank_claim, struct claim, 1);

/*
 * key: the socket of an initial subflow; value: 1 where an inner program leaves its session to the kernel's
 * path manager. Written and read here.
 */
BPF_SK_STORAGE(left_alone, u32);

static __always_inline void count(enum claim_counter counter)
{
	int index = counter;
	u64 *value = claim_counters.lookup(&index);

	if (value)
		(*value)++;
}

static __always_inline struct bpf_mptcp_addr *slot_at(u32 slot)
{
	/* A local copy: once its address is taken, the verifier loses the bound on the index. */
	int key = slot;

	return local_addr_map.lookup(&key);
}

static __always_inline struct look *last_look(void)
{
	int zero = 0;

	return looks.lookup(&zero);
}

static __always_inline struct up *up_of(const struct bpf_mptcp_addr *address)
{
	struct up_address key;

	__builtin_memcpy(key.ip, address->ip6, sizeof(key.ip));
	return up_addresses.lookup(&key);
}

static __always_inline void note_up(const struct bpf_mptcp_addr *address, struct up *up)
{
	struct up_address key;

	__builtin_memcpy(key.ip, address->ip6, sizeof(key.ip));
	up_addresses.update(&key, up);
}

static __always_inline struct interface *interface_at(u32 ifindex)
{
	return interfaces.lookup(&ifindex);
}

static __always_inline bool lock_slots(void)
{
	u64 now = bpf_ktime_get_ns(), *since;
	u32 zero = 0;

	if (!slot_lock.insert(&zero, &now))
		return true;
	since = slot_lock.lookup(&zero);
	if (!since || now - *since < SLOT_LOCK_NS)
		return false;
	*since = now; /* the service died */
	return true;
}

static __always_inline void unlock_slots(void)
{
	u32 zero = 0;

	slot_lock.delete(&zero);
}

static __always_inline const struct route *route_to(struct destination *destination)
{
	return routes.lookup(destination);
}

static __always_inline const struct path_parameters *find_parameters(void)
{
	u64 policy = POLICY_ID;

	return path_parameters.lookup(&policy);
}

static __always_inline u32 remote_flags(const struct bpf_mptcp_addr *address)
{
	struct remote_prefix key = { .length = 8 * sizeof(key.ip) };
	u32 *flags;

	__builtin_memcpy(key.ip, address->ip6, sizeof(key.ip));
	flags = remote_prefixes.lookup(&key);
	return flags ? *flags : 0;
}

static __always_inline bool is_accepted_peer(struct accepted_peer *peer)
{
	return accepted_peers.lookup(peer);
}

static __always_inline struct claim *add_claim(u32 token)
{
	int zero = 0;
	struct claim *blank = blank_claim.lookup(&zero);

	if (!blank || claims.update(&token, blank))
		return 0;
	return claims.lookup(&token);
}

static __always_inline struct claim *find_claim(u32 token)
{
	u64 policy = POLICY_ID;
	struct claim *claim = claims.lookup(&token);

	return claim && claim->policy == policy ? claim : 0;
}

static __always_inline void delete_claim(u32 token)
{
	claims.delete(&token);
}

static __always_inline void leave_alone(struct bpf_sock_ops *skops)
{
	struct bpf_sock *sk = skops->sk;
	u32 *left = sk ? left_alone.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE) : 0;

	if (left)
		*left = 1;
}

static __always_inline bool is_left_alone(struct bpf_sock_ops *skops)
{
	struct bpf_sock *sk = skops->sk;
	u32 *left = sk ? left_alone.sk_storage_get(sk, 0, 0) : 0;

	return left && *left;
}

#define PROGRAM(name)                                                            \
	int path_manager_##name(struct bpf_sock_ops *skops)                      \
	{                                                                        \
		struct claim *claim = claim_of_callback(skops);                  \
		const struct path_parameters *p = claim ? find_parameters() : 0; \
                                                                                 \
		if (claim && handle_callback(skops, claim, p))                   \
			name##_manage(skops, claim, p);                          \
		return 1;                                                        \
	}

EACH_PATH_MANAGER(PROGRAM)

/*
 * endpoints: claims nothing, so the kernel's own path manager opens what `ip mptcp endpoint` says. Nor may
 * the program of an outer cgroup claim the session.
 */
int path_manager_endpoints(struct bpf_sock_ops *skops)
{
	if (FIELD(skops, op) == BPF_SOCK_OPS_MPTCP_NEW_SESSION)
		leave_alone(skops);
	return 1;
}
