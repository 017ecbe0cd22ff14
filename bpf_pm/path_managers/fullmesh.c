// SPDX-License-Identifier: GPL-2.0-only
/*
 * fullmesh: subflows between every usable local address and every known remote one of its family
 * (paper, 4.4.2). What is lacking is opened by round, so that a cap that is too small for several
 * subflows per pair leaves every pair its first one.
 */
#include "path_manager.h"

#define ROUNDS 8

struct fullmesh_parameters {
	u32 subflows_per_pair;
	u32 max_subflows; /* of a session in all, the initial one included */
};

struct session {
	u64 policy;
	struct remotes remotes;
	u8 subflows[REMOTES][LOCALS]; /* asked for or there */
	u32 total; /* of them, and the initial one */
	u32 established;
	u32 retries;
	u32 initial; /* slot of the initial local address, 0 where it has none: first in each round */
};

/* key: slot; value: a usable address with id, interface and BPF_MPTCP_ADDR_BACKUP. By the service. */
BPF_ARRAY(local_addr_map, struct bpf_mptcp_addr, LOCALS);

/* key: policy. Written by the service. */
BPF_F_TABLE("hash", u64, struct fullmesh_parameters, parameters, 4096, NO_PREALLOC);

/* key: local token; value: a session of ours. Written and read here. */
BPF_HASH(sessions, u32, struct session, SESSIONS);

/* A new session, too large for the stack. Nobody writes it. */
BPF_ARRAY(blank, struct session, 1);

/* A key of its own: to the verifier, one that is passed by address is no bounded index any more. */
static __always_inline struct bpf_mptcp_addr *local_at(u32 slot)
{
	struct bpf_mptcp_addr *local;
	int key = slot;

	local = local_addr_map.lookup(&key);
	return local && local->family ? local : 0;
}

static __always_inline bool claim(struct bpf_sock_ops *skops, u32 token)
{
	struct session *session;
	int zero = 0;

	session = blank.lookup(&zero);
	if (!session || !may_claim(skops) || sessions.update(&token, session))
		return false;
	session = sessions.lookup(&token);
	if (!session)
		return false;
	session->policy = POLICY_ID;
	session->total = 1;
	remember_initial((void *)skops, &session->remotes);
	return true;
}

static __always_inline void establish(struct bpf_sock_ops *skops, struct session *session)
{
	struct bpf_mptcp_addr prio = { .flags = BPF_MPTCP_ADDR_PRIO | BPF_MPTCP_ADDR_BACKUP };
	struct bpf_mptcp_addr *local;

	session->established = 1;
	if (is_server((void *)skops))
		return;
	for (u32 l = 0; l < LOCALS; l++) {
		local = local_at(l);
		if (!local || !same_ip(local, &session->remotes.local))
			continue;
		session->subflows[0][l] = 1;
		session->initial = l;
		if (local->flags & BPF_MPTCP_ADDR_BACKUP)
			bpf_open_subflow(skops, &prio, sizeof(prio), 0, 0);
		return;
	}
}

static __always_inline void open_lacking(struct bpf_sock_ops *skops, struct session *session, u32 r,
					 u32 l, u32 round, u32 max_subflows)
{
	struct bpf_mptcp_addr *remote = &session->remotes.known[r], *local;
	u8 *subflows = &session->subflows[r][l];

	if (!remote->family || *subflows > round || session->total >= max_subflows)
		return;
	local = local_at(l);
	if (!local || is_ip4(local) != is_ip4(remote))
		return;
	if (!open_pair(skops, &session->remotes, local, remote, local->flags)) {
		(*subflows)++;
		session->total++;
	}
}

static __always_inline void open_all(struct bpf_sock_ops *skops, struct session *session)
{
	u64 policy = POLICY_ID;
	struct fullmesh_parameters *p = parameters.lookup(&policy);
	u32 initial = session->initial & (LOCALS - 1);

	if (!p || !session->established)
		return;
	for (u32 round = 0; round < ROUNDS && round < p->subflows_per_pair; round++) {
		open_lacking(skops, session, 0, initial, round, p->max_subflows);
		for (u32 i = 0; i < REMOTES * LOCALS; i++)
			open_lacking(skops, session, i / LOCALS, i % LOCALS, round,
				     p->max_subflows);
	}
}

static __always_inline void forget_announced(struct session *session, u32 id)
{
	u32 r = find_announced(&session->remotes, id);

	if (r >= REMOTES)
		return;
	session->remotes.known[r].family = 0;
	for (u32 l = 0; l < LOCALS; l++) {
		session->total -= session->subflows[r][l];
		session->subflows[r][l] = 0;
	}
}

/* Whether to open it again. */
static __always_inline bool lose_subflow(CONTEXT *ctx, struct session *session)
{
	u32 id = ctx->base.args[1], error = ctx->base.args[0], r;
	struct bpf_mptcp_addr remote = {}, *local;

	read_destination(ctx, &remote);
	r = find_remote(&session->remotes, &remote);
	if (r >= REMOTES)
		return false;
	for (u32 l = 0; l < LOCALS; l++) {
		local = local_at(l);
		if (!local || (id ? local->id != id : !same_ip(local, &session->remotes.local)))
			continue;
		if (!session->subflows[r][l])
			return false;
		session->subflows[r][l]--;
		session->total--;
		break;
	}
	return error && session->retries++ < RETRIES;
}

int path_manager(struct bpf_sock_ops *skops)
{
	CONTEXT *ctx = (void *)skops;
	u32 op = ctx->base.op, token;
	struct session *session;

	if (op < BPF_SOCK_OPS_MPTCP_NEW_SESSION || op > BPF_SOCK_OPS_MPTCP_JOIN_REQUEST)
		return 1;
	token = ctx->mptcp_loc_token;
	if (op == BPF_SOCK_OPS_MPTCP_NEW_SESSION) {
		if (claim(skops, token))
			ctx->base.reply = BPF_MPTCP_CLAIM;
		return 1;
	}
	session = sessions.lookup(&token);
	if (!session || session->policy != POLICY_ID)
		return 1;

	if (op == BPF_SOCK_OPS_MPTCP_FULLY_ESTABLISHED && ctx->base.args[1]) {
		establish(skops, session);
	} else if (op == BPF_SOCK_OPS_MPTCP_ADD_RADDR) {
		remember_announced(ctx, &session->remotes);
	} else if (op == BPF_SOCK_OPS_MPTCP_REM_RADDR) {
		forget_announced(session, ctx->base.args[0]);
	} else if (op == BPF_SOCK_OPS_MPTCP_SUBFLOW_CLOSED) {
		if (!lose_subflow(ctx, session))
			return 1;
	} else if (op == BPF_SOCK_OPS_MPTCP_CLOSE_SESSION) {
		sessions.delete(&token);
		return 1;
	} else {
		return 1;
	}
	open_all(skops, session);
	return 1;
}
