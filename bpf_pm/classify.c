// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which policy owns an MPTCP session: a sock_ops program for the cgroups of
 * one policy. It writes down every initial subflow that comes up in them; the
 * service takes the entry away when the kernel tells it of the session. Entries
 * that nobody takes go with their socket, since their addresses and ports may
 * come again in a cgroup that has no policy.
 *
 * Loaded once per policy: the loader replaces the two placeholders.
 */
#include "session.h"
#include "placeholder.h"

#define AF_INET6 10
#define TCPOPT_MPTCP 30
#define MP_CAPABLE 0
#define ENOSPC 28

/* A field of the context, by itself: the verifier refuses one load of two neighbours. */
#define FIELD(name) (*(volatile u32 *)&skops->name)

/* key: a subflow; value: its socket and policy. Written here, taken by the service. */
BPF_TABLE("lru_hash", struct session_key, struct session_value, sessions, 65536);

/* key: enum counter; value: how often. Written here, read by the service. */
BPF_PERCPU_ARRAY(counters, u64, COUNTERS);

/* BCC declares it as returning 32 bits. */
static u64 (*get_socket_cookie)(void *ctx) = (void *)BPF_FUNC_get_socket_cookie;

static __always_inline void count(enum counter which)
{
	int index = which;
	u64 *value = counters.lookup(&index);

	if (value)
		(*value)++;
}

static __always_inline void fill_key(struct bpf_sock_ops *skops, struct session_key *key)
{
	if (skops->family == AF_INET6) {
		key->local[0] = FIELD(local_ip6[0]);
		key->local[1] = FIELD(local_ip6[1]);
		key->local[2] = FIELD(local_ip6[2]);
		key->local[3] = FIELD(local_ip6[3]);
		key->remote[0] = FIELD(remote_ip6[0]);
		key->remote[1] = FIELD(remote_ip6[1]);
		key->remote[2] = FIELD(remote_ip6[2]);
		key->remote[3] = FIELD(remote_ip6[3]);
		/* Or both branches share a load from a computed offset, refused too. */
		asm volatile("" ::: "memory");
	} else {
		key->local[2] = bpf_htonl(0xffff);
		key->local[3] = FIELD(local_ip4);
		key->remote[2] = bpf_htonl(0xffff);
		key->remote[3] = FIELD(remote_ip4);
	}
	key->local_port = FIELD(local_port);
	key->remote_port = bpf_ntohl(FIELD(remote_port));
}

/*
 * Whether the packet that completes the handshake carries MP_CAPABLE (RFC 8684,
 * section 3.1): the initial subflow of a session, neither a join nor a fallback.
 * Asking the socket (bpf_skc_to_mptcp_sock) would need BTF and CAP_PERFMON, and
 * cannot tell these apart.
 */
static __always_inline bool starts_session(struct bpf_sock_ops *skops)
{
	u8 option[4] = { TCPOPT_MPTCP };
	long length = bpf_load_hdr_opt(skops, option, sizeof(option), 0);

	/* -ENOSPC: it is longer than our buffer, which is full then. */
	if (length != sizeof(option) && length != -ENOSPC)
		return false;
	return option[2] >> 4 == MP_CAPABLE;
}

static __always_inline void record(struct bpf_sock_ops *skops)
{
	struct session_value value = { .policy = POLICY_ID };
	struct session_key key = {};
	struct session_value *known;

	if (!starts_session(skops))
		return;

	value.cookie = get_socket_cookie(skops);
	fill_key(skops, &key);

	/* Programs of inner cgroups run first: the innermost policy has it. */
	known = sessions.lookup(&key);
	if (known && known->cookie == value.cookie)
		return;

	if (sessions.update(&key, &value)) {
		count(COUNTER_FAILED);
		return;
	}
	count(COUNTER_CLASSIFIED);
	bpf_sock_ops_cb_flags_set(skops, skops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline void forget(struct bpf_sock_ops *skops)
{
	struct session_key key = {};
	struct session_value *known;

	fill_key(skops, &key);
	known = sessions.lookup(&key);
	if (known && known->cookie == get_socket_cookie(skops))
		sessions.delete(&key);
}

int classify(struct bpf_sock_ops *skops)
{
	switch (skops->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		if (bpf_get_netns_cookie(skops) == NETNS_COOKIE)
			record(skops);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (skops->args[1] == BPF_TCP_CLOSE && bpf_get_netns_cookie(skops) == NETNS_COOKIE)
			forget(skops);
		break;
	}
	return 1;
}
