/* SPDX-License-Identifier: GPL-2.0-only */
/* What a subflow had carried when its socket was closed. pm/linux/bpf/layouts.py has the same. */
#ifndef MPTCP_PM_FINAL_FIGURES_H
#define MPTCP_PM_FINAL_FIGURES_H

#include "context.h"
#include "session.h"

#define FINALS_BYTES (1 << 20) /* of the ring buffer: some ten thousand records */

struct final_figures {
	struct session_key key; /* of the subflow */
	u32 retransmits; /* segments, in its whole life */
	u64 bytes_acked; /* as struct tcp_info: SYN and FIN count as a byte each */
	u64 bytes_received; /* so does the peer's FIN */
	u32 rtt_us; /* smoothed */
	u32 pad;
};

static __always_inline void fill_figures(struct bpf_sock_ops *skops, struct final_figures *figures)
{
	figures->retransmits = FIELD(skops, total_retrans);
	figures->bytes_acked = skops->bytes_acked;
	figures->bytes_received = skops->bytes_received;
	figures->rtt_us = FIELD(skops, srtt_us) >> 3;
}

#endif
