/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What path managers for the patched kernel share (docs/kernel-abi.md). Loaded once per policy: the
 * loader replaces the placeholders. Addresses are IPv6 throughout, IPv4 as ::ffff:a.b.c.d: the
 * helpers take them as they are.
 */
#ifndef MPTCP_PM_PATH_MANAGER_H
#define MPTCP_PM_PATH_MANAGER_H

#include "bpf_mptcp.h"
#include "placeholder.h"

#define AF_INET 2
#define AF_INET6 10
#define LOCALS 16 /* slots of local_addr_map */
#define REMOTES 8 /* per session; on the client, the first one is that of the initial subflow */
#define RETRIES \
	3 /* of a session, for subflows that failed: the rest is the service's, with backoff */
/*
 * Room for sessions; without, a session stays with the kernel's path manager. Preallocated: in softirq a
 * burst of new sessions finds the allocator empty.
 */
#define SESSIONS 16384
#define NO_PREALLOC 1

/* The context: each field is loaded by itself, see bpf_mptcp.h. */
#define CONTEXT volatile struct bpf_sock_ops_mptcp

struct remotes {
	struct bpf_mptcp_addr local; /* of the initial subflow */
	struct bpf_mptcp_addr initial;
	struct bpf_mptcp_addr known[REMOTES]; /* that subflows can be opened to; family 0: free */
};

static __always_inline bool is_server(CONTEXT *ctx)
{
	return ctx->mptcp_flags & BPF_MPTCP_F_SERVER;
}

/* Whether a NEW_SESSION is for us: programs of inner cgroups run first and may have claimed it. */
static __always_inline bool may_claim(struct bpf_sock_ops *skops)
{
	CONTEXT *ctx = (void *)skops;

	return ctx->base.reply != BPF_MPTCP_CLAIM && bpf_get_netns_cookie(skops) == NETNS_COOKIE;
}

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

/* Where the subflow of SUBFLOW_CLOSED or SUBFLOW_ESTABLISHED leads. */
static __always_inline void read_destination(CONTEXT *ctx, struct bpf_mptcp_addr *address)
{
	if (ctx->base.args[3] & BPF_MPTCP_SF_REQUEST)
		read_raddr(ctx, address);
	else
		read_remote(ctx, address);
}

static __always_inline bool same_ip(const struct bpf_mptcp_addr *a, const struct bpf_mptcp_addr *b)
{
	return a->ip6[0] == b->ip6[0] && a->ip6[1] == b->ip6[1] && a->ip6[2] == b->ip6[2] &&
	       a->ip6[3] == b->ip6[3];
}

static __always_inline bool is_ip4(const struct bpf_mptcp_addr *address)
{
	return !address->ip6[0] && !address->ip6[1] && address->ip6[2] == bpf_htonl(0xffff);
}

/* The slot of an address that subflows can be opened to, REMOTES where it is none. */
static __always_inline u32 find_remote(struct remotes *remotes, const struct bpf_mptcp_addr *remote)
{
	u32 r;

	for (r = 0; r < REMOTES; r++) {
		if (remotes->known[r].family && remotes->known[r].port == remote->port &&
		    same_ip(&remotes->known[r], remote))
			break;
	}
	return r;
}

/* The slot of an announced address, REMOTES where there is none. */
static __always_inline u32 find_announced(struct remotes *remotes, u32 id)
{
	u32 r;

	for (r = 0; r < REMOTES; r++) {
		if (remotes->known[r].family && id && remotes->known[r].id == id)
			break;
	}
	return r;
}

/* At NEW_SESSION. A server has nobody to connect to: the client's port is ephemeral. */
static __always_inline void remember_initial(CONTEXT *ctx, struct remotes *remotes)
{
	read_local(ctx, &remotes->local);
	read_remote(ctx, &remotes->initial);
	if (!is_server(ctx))
		read_remote(ctx, &remotes->known[0]);
}

/*
 * At ADD_RADDR. A client knows the server's port where none was announced (RFC 8684, section
 * 3.4.1), a server reaches only those with a port.
 */
static __always_inline void remember_announced(CONTEXT *ctx, struct remotes *remotes)
{
	struct bpf_mptcp_addr remote = {};

	read_raddr(ctx, &remote);
	if (!remote.port && is_server(ctx))
		return;
	if (!remote.port)
		remote.port = remotes->initial.port;
	if (find_remote(remotes, &remote) < REMOTES)
		return;
	for (u32 r = 0; r < REMOTES; r++) {
		if (!remotes->known[r].family) {
			remotes->known[r] = remote;
			return;
		}
	}
}

/* Open a subflow from a local_addr_map entry; the initial address has no id of its own. */
static __always_inline long open_pair(struct bpf_sock_ops *skops, struct remotes *remotes,
				      const struct bpf_mptcp_addr *local,
				      const struct bpf_mptcp_addr *remote, u32 flags)
{
	struct bpf_mptcp_addr src = *local;

	src.ifindex = 0; /* routing is the host's business */
	src.flags = flags;
	if (same_ip(&src, &remotes->local))
		src.id = 0;
	return bpf_open_subflow(skops, &src, sizeof(src), remote, sizeof(*remote));
}

#endif
