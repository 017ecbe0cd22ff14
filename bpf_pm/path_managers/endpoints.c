// SPDX-License-Identifier: GPL-2.0-only
/*
 * endpoints: claims nothing, so the kernel's own path manager opens what `ip mptcp endpoint` says. Nor may
 * the program of an outer cgroup's policy claim the session.
 */
#include "path_manager.h"

int path_manager_endpoints(struct bpf_sock_ops *skops)
{
	if (FIELD(skops, op) == BPF_SOCK_OPS_MPTCP_NEW_SESSION)
		leave_alone(skops);
	return 1;
}
