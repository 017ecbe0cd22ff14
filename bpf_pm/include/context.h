/* SPDX-License-Identifier: GPL-2.0-only */
/* The context of the patched kernel's callbacks, and the addresses in it: IPv4 as ::ffff:a.b.c.d. */
#ifndef MPTCP_PM_CONTEXT_H
#define MPTCP_PM_CONTEXT_H

#include "bpf_mptcp.h"

#define AF_INET 2
#define AF_INET6 10

/* Each field is loaded by itself, see bpf_mptcp.h. */
#define CONTEXT volatile struct bpf_sock_ops_mptcp

static __always_inline void set_ip4(struct bpf_mptcp_addr *address, u32 ip4)
{
	address->ip6[0] = 0;
	address->ip6[1] = 0;
	address->ip6[2] = bpf_htonl(0xffff);
	address->ip6[3] = ip4;
	/* Or both families share a load from a computed offset of the context, refused. */
	asm volatile("" ::: "memory");
}

static __always_inline void read_local(CONTEXT *ctx, struct bpf_mptcp_addr *address)
{
	address->family = AF_INET6;
	if (ctx->base.family == AF_INET) {
		set_ip4(address, ctx->base.local_ip4);
		return;
	}
	address->ip6[0] = ctx->base.local_ip6[0];
	address->ip6[1] = ctx->base.local_ip6[1];
	address->ip6[2] = ctx->base.local_ip6[2];
	address->ip6[3] = ctx->base.local_ip6[3];
	asm volatile("" ::: "memory");
}

static __always_inline void read_remote(CONTEXT *ctx, struct bpf_mptcp_addr *address)
{
	address->family = AF_INET6;
	address->port = bpf_htons(bpf_ntohl(ctx->base.remote_port));
	if (ctx->base.family == AF_INET) {
		set_ip4(address, ctx->base.remote_ip4);
		return;
	}
	address->ip6[0] = ctx->base.remote_ip6[0];
	address->ip6[1] = ctx->base.remote_ip6[1];
	address->ip6[2] = ctx->base.remote_ip6[2];
	address->ip6[3] = ctx->base.remote_ip6[3];
	asm volatile("" ::: "memory");
}

/* The address that ADD_RADDR is about, or SUBFLOW_CLOSED with BPF_MPTCP_SF_REQUEST. */
static __always_inline void read_raddr(CONTEXT *ctx, struct bpf_mptcp_addr *address)
{
	address->family = AF_INET6;
	address->port = ctx->mptcp_raddr_port;
	address->id = ctx->mptcp_raddr_id;
	if (ctx->mptcp_raddr_family == AF_INET) {
		set_ip4(address, ctx->mptcp_raddr_ip4);
		return;
	}
	address->ip6[0] = ctx->mptcp_raddr_ip6[0];
	address->ip6[1] = ctx->mptcp_raddr_ip6[1];
	address->ip6[2] = ctx->mptcp_raddr_ip6[2];
	address->ip6[3] = ctx->mptcp_raddr_ip6[3];
	asm volatile("" ::: "memory");
}

#endif
