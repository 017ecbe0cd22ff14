// SPDX-License-Identifier: GPL-2.0-only
/*
 * ndiffports: several subflows between the addresses of the initial one, on different source ports
 * (paper, 4.4.1). A server opens none: it cannot connect to the client's ephemeral port.
 */
#include "path_manager.h"

#define SUBFLOWS_MAX 32

struct session {
	u64 policy;
	u32 retries;
	u32 pad;
};

/* key: policy; value: subflows, the initial one included. Written by the service. */
BPF_F_TABLE("hash", u64, u32, parameters, 4096, NO_PREALLOC);

/* key: local token; value: a session of ours. Written and read here. */
BPF_HASH(sessions, u32, struct session, SESSIONS);

static __always_inline void open_subflows(struct bpf_sock_ops *skops)
{
	u64 policy = POLICY_ID;
	u32 *subflows = parameters.lookup(&policy);

	for (u32 i = 1; subflows && i < SUBFLOWS_MAX; i++) {
		if (i >= *subflows || bpf_open_subflow(skops, 0, 0, 0, 0))
			break;
	}
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
		struct session new = { .policy = POLICY_ID };

		if (may_claim(skops) && !sessions.update(&token, &new))
			ctx->base.reply = BPF_MPTCP_CLAIM;
		return 1;
	}

	session = sessions.lookup(&token);
	if (!session || session->policy != POLICY_ID)
		return 1;
	if (op == BPF_SOCK_OPS_MPTCP_CLOSE_SESSION) {
		sessions.delete(&token);
	} else if (is_server(ctx)) {
		return 1;
	} else if (op == BPF_SOCK_OPS_MPTCP_FULLY_ESTABLISHED) {
		if (ctx->base.args[1])
			open_subflows(skops);
	} else if (op == BPF_SOCK_OPS_MPTCP_SUBFLOW_CLOSED) {
		if (ctx->base.args[0] && session->retries < RETRIES) {
			session->retries++;
			bpf_open_subflow(skops, 0, 0, 0, 0);
		}
	}
	return 1;
}
