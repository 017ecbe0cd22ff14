/* SPDX-License-Identifier: GPL-2.0-only */
/* The addresses in the context of the patched kernel's callbacks. */
#ifndef MPTCP_PM_MPTCP_CONTEXT_H
#define MPTCP_PM_MPTCP_CONTEXT_H

#include "bpf_mptcp.h"
#include "context.h"

/* A field that the patched kernel adds. */
#define MPTCP_FIELD(skops, name) FIELD((struct bpf_sock_ops_mptcp *)(skops), name)

/* The local address of the callback's subflow, without port and id. */
static __always_inline void read_local(struct bpf_sock_ops *skops, struct bpf_mptcp_addr *address)
{
	address->family = AF_INET6;
	copy_ip(address->ip6, FIELD(skops, family), &skops->local_ip4, skops->local_ip6);
}

/* The remote address and port of the callback's subflow, without id. */
static __always_inline void read_remote(struct bpf_sock_ops *skops, struct bpf_mptcp_addr *address)
{
	address->family = AF_INET6;
	address->port = bpf_htons(bpf_ntohl(FIELD(skops, remote_port)));
	copy_ip(address->ip6, FIELD(skops, family), &skops->remote_ip4, skops->remote_ip6);
}

/* The address that ADD_RADDR is about, or SUBFLOW_CLOSED with BPF_MPTCP_SF_REQUEST. */
static __always_inline void read_raddr(struct bpf_sock_ops *skops, struct bpf_mptcp_addr *address)
{
	struct bpf_sock_ops_mptcp *mptcp = (void *)skops;

	address->family = AF_INET6;
	address->port = MPTCP_FIELD(skops, mptcp_raddr_port);
	address->id = MPTCP_FIELD(skops, mptcp_raddr_id);
	copy_ip(address->ip6, MPTCP_FIELD(skops, mptcp_raddr_family), &mptcp->mptcp_raddr_ip4,
		mptcp->mptcp_raddr_ip6);
}

#endif
