// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which policy owns an MPTCP session: a sock_ops program for the cgroups of
 * one policy. It records every initial subflow that is established in them; the
 * service takes the entry away when the kernel reports the session. An entry
 * that nobody takes goes with its socket, since its addresses and ports may be
 * used again in a cgroup without a policy.
 *
 * Loaded once per policy, see loader_constants.h.
 */
#include "context.h"
#include "loader_constants.h"
#include "session.h"

#define TCPOPT_MPTCP 30
#define MP_CAPABLE 0

/* key: a subflow; value: its socket and policy. Written here; read and deleted by the service. */
BPF_TABLE("lru_hash", struct session_key, struct session_value, sessions, 65536);

/* key: enum counter; value: how often. Written here, read by the service. */
BPF_PERCPU_ARRAY(counters, u64, COUNTERS);

/* BCC declares that it returns 32 bits. */
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
	u32 family = FIELD(skops, family);

	copy_ip(key->local, family, &skops->local_ip4, skops->local_ip6);
	copy_ip(key->remote, family, &skops->remote_ip4, skops->remote_ip6);
	key->local_port = FIELD(skops, local_port);
	key->remote_port = bpf_ntohl(FIELD(skops, remote_port));
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

	/* ENOSPC: the option is longer than the buffer, which has its first bytes then. */
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

	/* Programs of inner cgroups run first: the innermost policy keeps the session. */
	known = sessions.lookup(&key);
	if (known && known->cookie == value.cookie)
		return;

	if (sessions.update(&key, &value)) {
		count(COUNTER_FAILED);
		return;
	}
	count(COUNTER_CLASSIFIED);
	bpf_sock_ops_cb_flags_set(skops,
				  FIELD(skops, bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_STATE_CB_FLAG);
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
	switch (FIELD(skops, op)) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		if (bpf_get_netns_cookie(skops) == NETNS_COOKIE)
			record(skops);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (FIELD(skops, args[1]) == BPF_TCP_CLOSE &&
		    bpf_get_netns_cookie(skops) == NETNS_COOKIE)
			forget(skops);
		break;
	}
	return 1;
}
