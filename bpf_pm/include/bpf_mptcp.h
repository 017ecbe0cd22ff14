/* SPDX-License-Identifier: GPL-2.0-only */
/* What kernel/patches add to <linux/bpf.h>, for compilers with an older one (BCC brings its own).
 * docs/kernel-abi.md explains it; tests/kernel compares it with the kernel.
 */
#ifndef MPTCP_PM_BPF_MPTCP_H
#define MPTCP_PM_BPF_MPTCP_H

enum {
	BPF_SOCK_OPS_MPTCP_NEW_SESSION = 100,
	BPF_SOCK_OPS_MPTCP_FULLY_ESTABLISHED,
	BPF_SOCK_OPS_MPTCP_CLOSE_SESSION,
	BPF_SOCK_OPS_MPTCP_ADD_RADDR,
	BPF_SOCK_OPS_MPTCP_REM_RADDR,
	BPF_SOCK_OPS_MPTCP_SUBFLOW_ESTABLISHED,
	BPF_SOCK_OPS_MPTCP_SUBFLOW_CLOSED,
	BPF_SOCK_OPS_MPTCP_JOIN_REQUEST,
	BPF_SOCK_OPS_MPTCP_PRIORITY,
	BPF_SOCK_OPS_MPTCP_ORPHAN_SESSION,
	BPF_SOCK_OPS_MPTCP_REQUEST_DONE,
	BPF_SOCK_OPS_MPTCP_ADDRESS_CHANGED,
};

enum {
	BPF_MPTCP_CLAIM = 0x4d500001, /* reply to NEW_SESSION, ORPHAN_SESSION */
	BPF_MPTCP_REFUSE = 0x4d500002, /* reply to JOIN_REQUEST */
	BPF_MPTCP_ADDRESSES = 0x4d500003, /* reply to FULLY_ESTABLISHED, ADDRESS_CHANGED */
};

enum { /* mptcp_flags */
       BPF_MPTCP_F_MASTER = 1 << 0,
       BPF_MPTCP_F_JOIN = 1 << 1,
       BPF_MPTCP_F_ESTABLISHED = 1 << 2,
       BPF_MPTCP_F_SERVER = 1 << 3,
       BPF_MPTCP_F_FALLBACK = 1 << 4,
       BPF_MPTCP_F_CLAIMED = 1 << 5,
       BPF_MPTCP_F_BACKUP = 1 << 6,
       BPF_MPTCP_F_DENY_JOIN_ID0 = 1 << 7, /* the peer's C flag */
};

enum { /* args[3] of SUBFLOW_ESTABLISHED, SUBFLOW_CLOSED, JOIN_REQUEST, PRIORITY */
       BPF_MPTCP_SF_BACKUP = 1 << 0,
       BPF_MPTCP_SF_REQUEST = 1 << 1,
};

enum { /* struct bpf_mptcp_addr, flags; args[3] of REQUEST_DONE */
       BPF_MPTCP_ADDR_BACKUP = 1 << 0,
       BPF_MPTCP_ADDR_ANNOUNCE = 1 << 1,
       BPF_MPTCP_ADDR_PRIO = 1 << 2,
       BPF_MPTCP_ADDR_WITHDRAW = 1 << 3,
       BPF_MPTCP_ADDR_CLOSE = 1 << 4, /* REQUEST_DONE only */
};

enum { /* struct bpf_mptcp_addr, flags, from bpf_mptcp_locals() */
       BPF_MPTCP_LOCAL_UP = 1 << 8,
       BPF_MPTCP_LOCAL_TENTATIVE = 1 << 9,
       BPF_MPTCP_LOCAL_DEPRECATED = 1 << 10,
};

enum { TCP_BPF_DELACK_SEGS = 1100 };

/* Begins as sockaddr_in and sockaddr_in6 do; either may be passed instead. */
struct bpf_mptcp_addr {
	__u16 family;
	__u16 port; /* network order */
	__u32 ip4; /* network order */
	__u32 ip6[4]; /* network order */
	__u32 scope_id;
	__u32 id;
	__u32 ifindex;
	__u32 flags;
};

/* The context on the patched kernel. Cast to it, and read each u32 through a volatile pointer: the
 * verifier rejects a load of two fields, which clang makes of loads of neighbours otherwise.
 */
struct bpf_sock_ops_mptcp {
	struct bpf_sock_ops base;
	__u64 mptcp_loc_key; /* CAP_PERFMON */
	__u64 mptcp_rem_key; /* CAP_PERFMON */
	__u32 mptcp_loc_token;
	__u32 mptcp_rem_token;
	__u32 mptcp_flags;
	__u32 mptcp_raddr_id;
	__u32 mptcp_raddr_family;
	__u32 mptcp_raddr_port;
	__u32 mptcp_raddr_ip4;
	__u32 mptcp_raddr_ip6[4];
};

_Static_assert(sizeof(struct bpf_sock_ops) == 224, "struct bpf_sock_ops is not that of Linux 6.12");

static long (*bpf_open_subflow)(void *ctx, const void *src, __u32 src_len, const void *dst,
				__u32 dst_len) = (void *)212;
static long (*bpf_close_subflow)(void *ctx, const void *src, __u32 src_len, const void *dst,
				 __u32 dst_len) = (void *)213;
static long (*bpf_mptcp_locals)(void *ctx, void *buf, __u32 len) = (void *)214;

#endif
