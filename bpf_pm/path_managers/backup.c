// SPDX-License-Identifier: GPL-2.0-only
/*
 * backup: one standby subflow over another interface, with the backup flag; it is promoted when
 * the primary fails, and goes back when that is there again.
 */
#include "path_manager.h"

struct session {
	u64 policy;
	struct remotes remotes;
	struct bpf_mptcp_addr standby; /* as opened; family 0: none */
	struct bpf_mptcp_addr standby_remote;
	u32 primary_up;
	u32 retries;
};

/* key: slot; value: a usable address with id, interface and BPF_MPTCP_ADDR_BACKUP. By the service. */
BPF_ARRAY(local_addr_map, struct bpf_mptcp_addr, LOCALS);

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
	remember_initial((void *)skops, &session->remotes);
	return true;
}

/* The initial local address as long as it is usable: without, nothing must wait behind a flag. */
static __always_inline struct bpf_mptcp_addr *find_primary(struct session *session)
{
	struct bpf_mptcp_addr *local;

	for (u32 l = 0; l < LOCALS; l++) {
		local = local_at(l);
		if (local && same_ip(local, &session->remotes.local))
			return local;
	}
	return 0;
}

/* Open the first pair over another interface than the primary's, those marked backup first. */
static __always_inline void open_standby(struct bpf_sock_ops *skops, struct session *session)
{
	struct bpf_mptcp_addr *primary = find_primary(session), *local, *remote;
	u32 ifindex = primary ? primary->ifindex : 0;
	u32 flags = primary && session->primary_up ? BPF_MPTCP_ADDR_BACKUP : 0;

	for (u32 i = 0; i < 2 * LOCALS; i++) {
		local = local_at(i % LOCALS);
		if (!local || local == primary || local->ifindex == ifindex ||
		    (i < LOCALS) != (local->flags & BPF_MPTCP_ADDR_BACKUP))
			continue;
		for (u32 r = 0; r < REMOTES; r++) {
			remote = &session->remotes.known[r];
			if (!remote->family || is_ip4(local) != is_ip4(remote))
				continue;
			if (open_pair(skops, &session->remotes, local, remote, flags))
				continue;
			session->standby = *local;
			session->standby_remote = *remote;
			return;
		}
	}
}

static __always_inline void set_standby(struct bpf_sock_ops *skops, struct session *session,
					u32 flags)
{
	struct bpf_mptcp_addr src = session->standby, dst = session->standby_remote;

	if (!src.family)
		return;
	src.flags = BPF_MPTCP_ADDR_PRIO | flags;
	src.ifindex = 0;
	src.id =
		0; /* the address says it; the peer's id for its own can differ from what we know */
	dst.id = 0;
	bpf_open_subflow(skops, &src, sizeof(src), &dst, sizeof(dst));
}

static __always_inline void change_subflow(struct bpf_sock_ops *skops, struct session *session,
					   bool closed)
{
	CONTEXT *ctx = (void *)skops;
	u32 error = ctx->base.args[0], id = ctx->base.args[1];
	struct bpf_mptcp_addr remote = {};
	bool retry;

	read_destination(ctx, &remote);
	retry = closed && error && session->retries < RETRIES;
	if (!id && same_ip(&remote, &session->remotes.initial)) {
		if (session->primary_up == !closed)
			return;
		session->primary_up = !closed;
		set_standby(skops, session, closed ? 0 : BPF_MPTCP_ADDR_BACKUP);
		if (retry && !is_server(ctx) && !bpf_open_subflow(skops, 0, 0, 0, 0))
			session->retries++;
	} else if (closed && id && id == session->standby.id) {
		session->standby.family = 0;
		if (retry) {
			session->retries++;
			open_standby(skops, session);
		}
	}
}

int path_manager(struct bpf_sock_ops *skops)
{
	CONTEXT *ctx = (void *)skops;
	u32 op = ctx->base.op, token, r;
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
		session->primary_up = 1;
	} else if (op == BPF_SOCK_OPS_MPTCP_ADD_RADDR) {
		remember_announced(ctx, &session->remotes);
	} else if (op == BPF_SOCK_OPS_MPTCP_REM_RADDR) {
		r = find_announced(&session->remotes, ctx->base.args[0]);
		if (r < REMOTES)
			session->remotes.known[r].family = 0;
		return 1;
	} else if (op == BPF_SOCK_OPS_MPTCP_SUBFLOW_ESTABLISHED ||
		   op == BPF_SOCK_OPS_MPTCP_SUBFLOW_CLOSED) {
		change_subflow(skops, session, op == BPF_SOCK_OPS_MPTCP_SUBFLOW_CLOSED);
		return 1;
	} else if (op == BPF_SOCK_OPS_MPTCP_CLOSE_SESSION) {
		sessions.delete(&token);
		return 1;
	} else {
		return 1;
	}
	if (!session->standby.family)
		open_standby(skops, session);
	return 1;
}
