// SPDX-License-Identifier: GPL-2.0-only
/*
 * Path managers for the patched kernel (docs/kernel-abi.md): a sock_ops program for the cgroups of
 * one policy. It claims sessions, knows their remote addresses and subflows, waits for the policy's
 * start conditions, applies its accept rules, and calls the path manager.
 *
 * The loader says which path managers there are: EACH_PATH_MANAGER(X) is X(name)...; their files are
 * included before this one. Each is a program of its own, path_manager_NAME.
 *
 * Callbacks of two subflows of a session may run at once, on two processors: a count may be off by
 * one then, and the service mends what comes of it.
 */
#include "context.h"
#include "path_manager.h"
#include "placeholder.h"

#define NO_PREALLOC 1
/*
 * Room for sessions; without, a session stays with the kernel's path manager. Preallocated: in softirq a
 * burst of new sessions finds the allocator empty.
 */
#define CLAIMS 16384
#define RETRIES 3 /* of a session, at once: the rest is the service's, with backoff */

struct accepted_peer {
	u32 length; /* bits from `policy` on */
	u32 policy[2]; /* low half, high half */
	u32 ip[4]; /* network order, IPv4 is ::ffff:a.b.c.d */
};

enum claim_counter {
	CLAIM_TAKEN,
	CLAIM_NO_ROOM,
	CLAIM_JOIN_REFUSED,
	CLAIM_COUNTERS,
};

/*
 * key: slot; value: a local address with id, interface and BPF_MPTCP_ADDR_BACKUP. Family 0: not
 * usable now; address and id tell whose it was. Written by the service, read here.
 */
BPF_ARRAY(local_addr_map, struct bpf_mptcp_addr, LOCALS);

/* key: policy. Written by the service, read here. */
BPF_F_TABLE("hash", u64, struct path_parameters, path_parameters, 4096, NO_PREALLOC);

/* key: policy and prefix of peers that may open subflows; value: 1. Written by the service, read here. */
BPF_F_TABLE("lpm_trie", struct accepted_peer, u32, accepted_peers, 65536, NO_PREALLOC);

/* key: local token; value: a session of ours. Written here, read by the service. */
BPF_HASH(claims, u32, struct claim, CLAIMS);

/* key: enum claim_counter; value: how often. Written here, read by the service. */
BPF_PERCPU_ARRAY(claim_counters, u64, CLAIM_COUNTERS);

/* key: 0; value: a new session, too large for the stack. Nobody writes it, read here. */
BPF_ARRAY(blank_claim, struct claim, 1);

static __always_inline void count(enum claim_counter counter)
{
	int index = counter;
	u64 *value = claim_counters.lookup(&index);

	if (value)
		(*value)++;
}

static __always_inline struct bpf_mptcp_addr *slot_at(u32 slot)
{
	/* Its own: to the verifier, one that is passed by address is no bounded index any more. */
	int key = slot;

	return local_addr_map.lookup(&key);
}

static __always_inline struct bpf_mptcp_addr *local_at(u32 slot)
{
	struct bpf_mptcp_addr *local = slot_at(slot);

	return local && local->family ? local : 0;
}

/* See which local addresses are usable now. */
static __always_inline void look_at_locals(struct claim *claim)
{
	u32 ip4 = 0, ip6 = 0, backups = 0, near = 0, initial = LOCALS, ifindex = 0;
	struct bpf_mptcp_addr *local;

	for (u32 slot = 0; slot < LOCALS; slot++) {
		local = local_at(slot);
		if (local && same_ip(local, &claim->local)) {
			initial = slot;
			ifindex = local->ifindex;
		}
	}
	for (u32 slot = 0; slot < LOCALS; slot++) {
		local = local_at(slot);
		if (!local)
			continue;
		if (is_ip4(local))
			ip4 |= 1 << slot;
		else
			ip6 |= 1 << slot;
		if (local->flags & BPF_MPTCP_ADDR_BACKUP)
			backups |= 1 << slot;
		if (local->ifindex == ifindex)
			near |= 1 << slot;
	}
	claim->usable_ip4 = ip4;
	claim->usable_ip6 = claim->ip4_only ? 0 : ip6;
	claim->backups = backups;
	claim->near = near;
	claim->initial_slot = initial;
	/* What is read back is unknown to the verifier: one state, not one for each way here. */
	asm volatile("" ::: "memory");
}

/* At NEW_SESSION: programs of inner cgroups run first and may have claimed it. */
static __always_inline void take(struct bpf_sock_ops *skops, u32 token)
{
	CONTEXT *ctx = (void *)skops;
	struct claim *claim;
	int zero = 0;

	if (ctx->base.reply == BPF_MPTCP_CLAIM || bpf_get_netns_cookie(skops) != NETNS_COOKIE)
		return;
	claim = blank_claim.lookup(&zero);
	if (!claim || claims.update(&token, claim) || !(claim = claims.lookup(&token))) {
		count(CLAIM_NO_ROOM);
		return;
	}
	claim->policy = POLICY_ID;
	claim->ip4_only = ctx->base.family == AF_INET;
	read_local(ctx, &claim->local);
	read_remote(ctx, &claim->remotes[INITIAL].address);
	initial_pair(claim)->there = 1;
	claim->total = 1;
	claim->established = 1;
	/* A client's port is ephemeral: nobody listens there. */
	if (ctx->mptcp_flags & (BPF_MPTCP_F_SERVER | BPF_MPTCP_F_DENY_JOIN_ID0))
		claim->unreachable = 1;
	count(CLAIM_TAKEN);
	ctx->base.reply = BPF_MPTCP_CLAIM;
}

/* The slot of a remote address, REMOTES where it is none. */
static __always_inline u32 find_remote(struct claim *claim, const struct bpf_mptcp_addr *address)
{
	u32 r;

	for (r = 0; r < REMOTES; r++) {
		if (claim->remotes[r].address.family &&
		    claim->remotes[r].address.port == address->port &&
		    same_ip(&claim->remotes[r].address, address))
			break;
	}
	return r;
}

/* At REM_RADDR; those behind it move up. */
static __always_inline void forget_remote(struct claim *claim, u32 id)
{
	u32 found;

	for (found = 1; found < REMOTES; found++) {
		if (claim->remotes[found].address.family && claim->remotes[found].address.id == id)
			break;
	}
	if (found >= REMOTES)
		return;
	for (u32 i = 0; i <= LOCALS; i++)
		claim->total -= subflows(&claim->remotes[found].pairs[i]);
	for (u32 r = 1; r < REMOTES - 1; r++) {
		if (r >= found)
			claim->remotes[r] = claim->remotes[r + 1];
	}
	__builtin_memset(&claim->remotes[REMOTES - 1], 0, sizeof(struct remote));
}

/*
 * At ADD_RADDR. A client knows the server's port where none was announced (RFC 8684, section
 * 3.4.1), a server reaches only those with a port.
 */
static __always_inline void remember_remote(CONTEXT *ctx, struct claim *claim)
{
	struct bpf_mptcp_addr address = {};
	u32 known;

	read_raddr(ctx, &address);
	if (!address.port) {
		if (ctx->mptcp_flags & BPF_MPTCP_F_SERVER)
			return;
		address.port = claim->remotes[INITIAL].address.port;
	}
	known = find_remote(claim, &address);
	if (known == INITIAL)
		claim->unreachable = 0;
	if (known < REMOTES)
		return;
	forget_remote(claim, address.id); /* of another address before */
	for (u32 r = 1; r < REMOTES; r++) {
		if (!claim->remotes[r].address.family) {
			claim->remotes[r].address = address;
			return;
		}
	}
}

/*
 * The pair of addresses of the subflow that the callback is about, 0 for one of the peer's; and whether
 * its local address is gone.
 */
static __always_inline struct pair *find_pair(CONTEXT *ctx, struct claim *claim, bool *gone)
{
	u32 id = ctx->base.args[1], request = ctx->base.args[3] & BPF_MPTCP_SF_REQUEST, r, i;
	struct bpf_mptcp_addr address = {}, *local;

	if (!request && ctx->mptcp_flags & BPF_MPTCP_F_MASTER)
		return initial_pair(claim);
	if (request)
		read_raddr(ctx, &address);
	else
		read_remote(ctx, &address);
	r = find_remote(claim, &address);
	if (r >= REMOTES)
		return 0;
	if (!id)
		return &claim->remotes[r].pairs[INITIAL];
	for (i = 0; i < LOCALS; i++) {
		local = slot_at(i);
		if (!local || local->id != id)
			continue;
		*gone = !local->family;
		return &claim->remotes[r].pairs[1 + i];
	}
	return 0;
}

/* A subflow came, perhaps one that the service opened or the peer. */
static __always_inline void gain(struct claim *claim, struct pair *pair)
{
	__sync_fetch_and_add(&claim->established, 1);
	if (!pair)
		return;
	if (pair->asked)
		pair->asked--;
	else
		claim->total++;
	pair->there++;
}

/* A subflow went. One that counts no more is opened again. */
static __always_inline void lose(CONTEXT *ctx, struct claim *claim, struct pair *pair, bool gone)
{
	u32 error = ctx->base.args[0];
	/* A SYN that nobody answered has no sequence number of the peer's. */
	bool was_there = !(ctx->base.args[3] & BPF_MPTCP_SF_REQUEST) && ctx->base.rcv_nxt;

	if (pair && !pair->there)
		was_there = false; /* the peer's answer was wrong */
	if (was_there)
		__sync_fetch_and_add(&claim->established, -1);
	if (!pair || !(was_there || pair->asked))
		return;
	if (was_there)
		pair->there--;
	else
		pair->asked--;
	if (gone) {
		claim->total--;
	} else if (error && claim->retries < RETRIES) {
		claim->retries++;
		claim->total--;
	} else {
		pair->asked++;
	}
}

static __always_inline void count_subflow(CONTEXT *ctx, struct claim *claim, u32 op)
{
	bool gone = false;
	struct pair *pair = find_pair(ctx, claim, &gone);

	if (op == BPF_SOCK_OPS_MPTCP_SUBFLOW_ESTABLISHED)
		gain(claim, pair);
	else
		lose(ctx, claim, pair, gone);
}

/* Once the policy's start conditions hold. Until then each packet asks: that serves receivers, too. */
static __always_inline void start(struct bpf_sock_ops *skops, struct claim *claim,
				  const struct path_parameters *p)
{
	CONTEXT *ctx = (void *)skops;
	u32 flags = ctx->base.bpf_sock_ops_cb_flags;

	if (bpf_ktime_get_ns() - claim->established_ns < p->start_after_ns ||
	    ctx->base.bytes_acked + ctx->base.bytes_received < p->start_after_bytes) {
		if (!(flags & BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG)) {
			claim->parsing = true;
			bpf_sock_ops_cb_flags_set(skops,
						  flags | BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG);
		}
		return;
	}
	if (claim->parsing)
		bpf_sock_ops_cb_flags_set(skops, flags & ~BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG);
	claim->parsing = false;
	claim->started = true;
}

/* At JOIN_REQUEST: whether the policy's accept rules let the peer open one more. */
static __always_inline bool accepts(CONTEXT *ctx, struct claim *claim,
				    const struct path_parameters *p)
{
	struct accepted_peer peer = {
		.length = 8 * (sizeof(peer.policy) + sizeof(peer.ip)),
		.policy = { claim->policy, claim->policy >> 32 },
	};
	struct bpf_mptcp_addr address = {};

	if (p->accept_max_subflows && claim->established >= p->accept_max_subflows)
		return false;
	if (!p->accept_listed)
		return true;
	read_remote(ctx, &address);
	__builtin_memcpy(peer.ip, address.ip6, sizeof(peer.ip));
	return accepted_peers.lookup(&peer);
}

/* Our claim where its path manager is to look at it, with the policy's parameters; else 0. */
static __always_inline struct claim *follow(struct bpf_sock_ops *skops, struct path_parameters **p)
{
	CONTEXT *ctx = (void *)skops;
	u32 op = ctx->base.op, token;
	u64 policy = POLICY_ID;
	struct claim *claim;

	if (op != BPF_SOCK_OPS_PARSE_HDR_OPT_CB &&
	    (op < BPF_SOCK_OPS_MPTCP_NEW_SESSION || op > BPF_SOCK_OPS_MPTCP_JOIN_REQUEST))
		return 0;
	token = ctx->mptcp_loc_token;
	if (op == BPF_SOCK_OPS_MPTCP_NEW_SESSION) {
		take(skops, token);
		return 0;
	}
	if (op == BPF_SOCK_OPS_MPTCP_CLOSE_SESSION) {
		claims.delete(&token);
		return 0;
	}
	claim = claims.lookup(&token);
	if (!claim || claim->policy != policy)
		return 0;
	*p = path_parameters.lookup(&policy);

	switch (op) {
	case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
		if (claim->started || !claim->established_ns ||
		    !(ctx->mptcp_flags & BPF_MPTCP_F_MASTER))
			return 0;
		break;
	case BPF_SOCK_OPS_MPTCP_FULLY_ESTABLISHED:
		if (!ctx->base.args[1])
			return 0;
		claim->established_ns = bpf_ktime_get_ns();
		break;
	case BPF_SOCK_OPS_MPTCP_ADD_RADDR:
		remember_remote(ctx, claim);
		break;
	case BPF_SOCK_OPS_MPTCP_REM_RADDR:
		forget_remote(claim, ctx->base.args[0]);
		break;
	case BPF_SOCK_OPS_MPTCP_SUBFLOW_ESTABLISHED:
	case BPF_SOCK_OPS_MPTCP_SUBFLOW_CLOSED:
		count_subflow(ctx, claim, op);
		break;
	case BPF_SOCK_OPS_MPTCP_JOIN_REQUEST:
		if (*p && !accepts(ctx, claim, *p)) {
			count(CLAIM_JOIN_REFUSED);
			ctx->base.reply = BPF_MPTCP_REFUSE;
		}
		return 0;
	}
	if (!*p)
		return 0;
	if (op == BPF_SOCK_OPS_MPTCP_FULLY_ESTABLISHED || op == BPF_SOCK_OPS_PARSE_HDR_OPT_CB)
		start(skops, claim, *p);
	if (!claim->started)
		return 0;
	look_at_locals(claim);
	return claim;
}

#define PROGRAM(name)                                       \
	int path_manager_##name(struct bpf_sock_ops *skops) \
	{                                                   \
		struct path_parameters *p = 0;              \
		struct claim *claim = follow(skops, &p);    \
                                                            \
		if (claim)                                  \
			name##_manage(skops, claim, p);     \
		return 1;                                   \
	}

EACH_PATH_MANAGER(PROGRAM)
