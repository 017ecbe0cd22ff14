/* SPDX-License-Identifier: GPL-2.0-only */
/* Records each MPTCP callback and makes the requests that the test wrote into the map. */
#include "bpf_mptcp.h"

#define EVENTS 2048
#define ACTIONS 4
#define FIRST_OP BPF_SOCK_OPS_MPTCP_NEW_SESSION
#define OPS 12

enum { NOTHING, OPEN, CLOSE };

struct action {
	u32 op; /* the callback to act in */
	u32 kind; /* OPEN or CLOSE */
	u32 src_len; /* 0: NULL */
	u32 dst_len;
	u32 times;
	u32 remaining; /* callbacks in which to act */
	struct bpf_mptcp_addr src;
	struct bpf_mptcp_addr dst;
};

struct event {
	u64 loc_key;
	u64 rem_key;
	u64 time_ns;
	u32 op;
	u32 args[4];
	u32 loc_token;
	u32 rem_token;
	u32 flags;
	u32 raddr[8]; /* id, family, port, ip4, ip6 */
	u32 family;
	u32 local_port; /* host order */
	u32 remote_port; /* network order */
	u32 low_byte; /* of flags, by a narrow load */
	s32 results[ACTIONS];
	u32 pad[2];
};

BPF_ARRAY(replies, u32, 3); /* to NEW_SESSION, JOIN_REQUEST, ORPHAN_SESSION; written by the test */
BPF_ARRAY(actions, struct action, ACTIONS); /* written by the test */
BPF_QUEUE(events, struct event, EVENTS); /* read by the test */
BPF_ARRAY(counts, u32, OPS); /* callbacks by op; read by the test */

static __always_inline long request(void *ctx, struct action *a)
{
	u32 src_len = a->src_len, dst_len = a->dst_len;

	if (src_len > sizeof(a->src) || dst_len > sizeof(a->dst))
		return -1;
	if (a->kind == OPEN) {
		if (!src_len)
			return dst_len ? bpf_open_subflow(ctx, 0, 0, &a->dst, dst_len) :
					 bpf_open_subflow(ctx, 0, 0, 0, 0);
		return dst_len ? bpf_open_subflow(ctx, &a->src, src_len, &a->dst, dst_len) :
				 bpf_open_subflow(ctx, &a->src, src_len, 0, 0);
	}
	if (!src_len)
		return dst_len ? bpf_close_subflow(ctx, 0, 0, &a->dst, dst_len) :
				 bpf_close_subflow(ctx, 0, 0, 0, 0);
	return dst_len ? bpf_close_subflow(ctx, &a->src, src_len, &a->dst, dst_len) :
			 bpf_close_subflow(ctx, &a->src, src_len, 0, 0);
}

static __always_inline s32 act(void *ctx, u32 op, u32 index)
{
	struct action *a = actions.lookup(&index);
	s32 result = 1;
	u32 i;

	if (!a || a->op != op || !a->remaining)
		return 1;
	a->remaining--;
	for (i = 0; i < 80 && i < a->times; i++)
		result = request(ctx, a);
	return result;
}

int record(struct bpf_sock_ops *skops)
{
	volatile struct bpf_sock_ops_mptcp *ctx = (void *)skops;
	u32 op = ctx->base.op, kind = op - FIRST_OP, reply_key, *count;
	struct event e = {};

	if (kind >= OPS)
		return 1;
	count = counts.lookup(&kind);
	if (!count)
		return 1;
	__sync_fetch_and_add(count, 1);
	e.time_ns = bpf_ktime_get_ns();
	e.op = op;
	e.args[0] = ctx->base.args[0];
	e.args[1] = ctx->base.args[1];
	e.args[2] = ctx->base.args[2];
	e.args[3] = ctx->base.args[3];
	e.loc_key = ctx->mptcp_loc_key;
	e.rem_key = ctx->mptcp_rem_key;
	e.loc_token = ctx->mptcp_loc_token;
	e.rem_token = ctx->mptcp_rem_token;
	e.flags = ctx->mptcp_flags;
	e.low_byte = *(volatile u8 *)&ctx->mptcp_flags;
	e.raddr[0] = ctx->mptcp_raddr_id;
	e.raddr[1] = ctx->mptcp_raddr_family;
	e.raddr[2] = ctx->mptcp_raddr_port;
	e.raddr[3] = ctx->mptcp_raddr_ip4;
	e.raddr[4] = ctx->mptcp_raddr_ip6[0];
	e.raddr[5] = ctx->mptcp_raddr_ip6[1];
	e.raddr[6] = ctx->mptcp_raddr_ip6[2];
	e.raddr[7] = ctx->mptcp_raddr_ip6[3];
	e.family = ctx->base.family;
	e.local_port = ctx->base.local_port;
	e.remote_port = ctx->base.remote_port;
	e.results[0] = act(skops, op, 0);
	e.results[1] = act(skops, op, 1);
	e.results[2] = act(skops, op, 2);
	e.results[3] = act(skops, op, 3);

	events.push(&e, BPF_EXIST);

	if (op == BPF_SOCK_OPS_MPTCP_NEW_SESSION)
		reply_key = 0;
	else if (op == BPF_SOCK_OPS_MPTCP_JOIN_REQUEST)
		reply_key = 1;
	else if (op == BPF_SOCK_OPS_MPTCP_ORPHAN_SESSION)
		reply_key = 2;
	else
		return 1;
	count = replies.lookup(&reply_key);
	if (count)
		ctx->base.reply = *count;
	return 1;
}
