// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which policy owns an MPTCP session: a sock_ops program for the cgroups of
 * one policy. It records every initial subflow that is established in them; the
 * service takes the entry away when the kernel reports the session. An entry
 * that nobody takes goes with its socket, since its addresses and ports may be
 * used again in a cgroup without a policy.
 *
 * It also gives the policy's keepalive to the subflows that this host opens, and reports what each subflow
 * has carried when its socket is closed.
 *
 * Loaded once per policy, see loader_constants.h.
 */
#include "context.h"
#include "final_figures.h"
#include "handshake.h"
#include "keepalive.h"
#include "loader_constants.h"
#include "session.h"

#define NO_PREALLOC 1

/* key: a subflow; value: its socket and policy. Written here; read and deleted by the service. */
BPF_TABLE("lru_hash", struct session_key, struct session_value, sessions, 65536);

/* key: enum counter; value: how often. Written here, read by the service. */
BPF_PERCPU_ARRAY(counters, u64, COUNTERS);

/* key: policy; value: its keepalive, no entry for none. Written by the service, read here. */
BPF_F_TABLE("hash", u64, struct keepalive, keepalives, 4096, NO_PREALLOC);

/* What subflows had carried at their end. Written here, read by the service. */
#define PAGE_SIZE 4096
BPF_RINGBUF_OUTPUT(finals, FINALS_BYTES / PAGE_SIZE);

/*
 * key: an MPTCP subflow; value: enum seen. Several programs see it where cgroups with policies are nested;
 * the first, that of the innermost, acts. Written and read here.
 */
BPF_SK_STORAGE(subflows, u32);

enum seen {
	SEEN_NOT,
	SEEN_ESTABLISHED,
	SEEN_CLOSED,
};

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

static __always_inline void record(struct bpf_sock_ops *skops)
{
	struct session_value value = { .policy = POLICY_ID };
	struct session_key key = {};
	struct session_value *known;
	struct bpf_sock *sk = skops->sk;

	/* Joins do not inherit the device, and no event tells it. */
	if (sk) {
		value.device = sk->bound_dev_if;
		value.mark = sk->mark;
	}
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
}

/* Whether no program has seen this state of the subflow; it counts as seen then. */
static __always_inline bool is_first(struct bpf_sock_ops *skops, enum seen state, u64 flags)
{
	struct bpf_sock *sk = skops->sk;
	u32 *seen = sk ? subflows.sk_storage_get(sk, 0, flags) : 0;

	if (!seen || *seen != state - 1)
		return false;
	*seen = state;
	return true;
}

static __always_inline void keep_alive(struct bpf_sock_ops *skops)
{
	u64 policy = POLICY_ID;
	struct keepalive *keepalive = keepalives.lookup(&policy);

	if (keepalive)
		set_keepalive(skops, keepalive);
}

static __always_inline void established(struct bpf_sock_ops *skops)
{
	int subtype;

	if (bpf_get_netns_cookie(skops) != NETNS_COOKIE)
		return;
	subtype = subtype_of_handshake(skops);
	if (subtype != MP_CAPABLE && subtype != MP_JOIN)
		return;
	if (subtype == MP_CAPABLE)
		record(skops);
	/* All programs of the socket share the flags. */
	bpf_sock_ops_cb_flags_set(skops,
				  FIELD(skops, bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_STATE_CB_FLAG);
	/*
	 * Not the joins that the peer opened: when their application holds the session at this
	 * moment, the kernel copies the session's options over ours later.
	 */
	if (is_first(skops, SEEN_ESTABLISHED, BPF_SK_STORAGE_GET_F_CREATE) && subtype == MP_JOIN &&
	    FIELD(skops, op) == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		keep_alive(skops);
}

static __always_inline void closed(struct bpf_sock_ops *skops)
{
	struct final_figures figures = {};
	struct session_value *known;

	fill_key(skops, &figures.key);
	known = sessions.lookup(&figures.key);
	if (known && known->cookie == get_socket_cookie(skops))
		sessions.delete(&figures.key);

	if (!is_first(skops, SEEN_CLOSED, 0))
		return;
	fill_figures(skops, &figures);
	if (finals.ringbuf_output(&figures, sizeof(figures), 0))
		count(COUNTER_FINALS_LOST);
}

int classify(struct bpf_sock_ops *skops)
{
	switch (FIELD(skops, op)) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		established(skops);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (FIELD(skops, args[1]) == BPF_TCP_CLOSE &&
		    bpf_get_netns_cookie(skops) == NETNS_COOKIE)
			closed(skops);
		break;
	}
	return 1;
}
