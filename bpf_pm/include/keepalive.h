/* SPDX-License-Identifier: GPL-2.0-only */
/* TCP keepalive (tcp(7)) of a subflow: how long a path may be dead before its idle subflow is closed. */
#ifndef MPTCP_PM_KEEPALIVE_H
#define MPTCP_PM_KEEPALIVE_H

#define SOL_SOCKET 1
#define SO_KEEPALIVE 9
#define SOL_TCP 6
#define TCP_KEEPIDLE 4
#define TCP_KEEPINTVL 5
#define TCP_KEEPCNT 6

/* Of a policy. Written by the service; pm/linux/bpf/layouts.py has the same. */
struct keepalive {
	u32 idle_s; /* without a packet until the first probe */
	u32 interval_s; /* between probes */
	u32 count; /* unanswered probes until the subflow is closed */
};

static __always_inline void set_keepalive(struct bpf_sock_ops *skops,
					  const struct keepalive *keepalive)
{
	u32 idle_s = keepalive->idle_s;
	u32 interval_s = keepalive->interval_s;
	u32 count = keepalive->count;
	u32 on = 0;

	/* The application's own keepalive, which the kernel gave to the new subflow, stays. */
	if (bpf_getsockopt(skops, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) || on)
		return;
	on = 1;
	bpf_setsockopt(skops, SOL_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	bpf_setsockopt(skops, SOL_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	bpf_setsockopt(skops, SOL_TCP, TCP_KEEPCNT, &count, sizeof(count));
	bpf_setsockopt(skops, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

#endif
