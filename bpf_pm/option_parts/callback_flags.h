/* SPDX-License-Identifier: GPL-2.0-only */
/* Which callbacks the socket asks for. All its programs share the flags. */
#ifndef MPTCP_PM_OPTION_CALLBACK_FLAGS_H
#define MPTCP_PM_OPTION_CALLBACK_FLAGS_H

#include "option.h"

/* Set the flags that the plugins need now; clear others only if this program had set them. */
static __always_inline void update_callback_flags(struct option *o)
{
	struct option_state *state = o->state;
	u32 now = FIELD(o->skops, bpf_sock_ops_cb_flags);
	u32 wanted = 0, flags;

	if (state->sending)
		wanted |= BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
	if (state->listening)
		wanted |= BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG;
	if (state->timing)
		wanted |= BPF_SOCK_OPS_RTT_CB_FLAG;
	flags = (now | wanted) & ~(state->own_flags & ~wanted);
	state->own_flags = (state->own_flags | (wanted & ~now)) & wanted;
	if (flags != now)
		bpf_sock_ops_cb_flags_set(o->skops, flags);
}

#endif
