/* SPDX-License-Identifier: GPL-2.0-only */
/* What a handshake was about: MPTCP's option in the packet that completes it. */
#ifndef MPTCP_PM_HANDSHAKE_H
#define MPTCP_PM_HANDSHAKE_H

#include "context.h"

#define TCPOPT_MPTCP 30
#define MP_CAPABLE 0
#define MP_JOIN 1

/*
 * The subtype (RFC 8684, section 3) of the MPTCP option in the packet that
 * completes the handshake: MP_CAPABLE for the initial subflow of a session,
 * MP_JOIN for a join, negative for a fallback and for plain TCP. Asking the
 * socket (bpf_skc_to_mptcp_sock) would need BTF and CAP_PERFMON, and cannot
 * tell these apart.
 */
static __always_inline int subtype_of_handshake(struct bpf_sock_ops *skops)
{
	u8 option[4] = { TCPOPT_MPTCP };
	long length = bpf_load_hdr_opt(skops, option, sizeof(option), 0);

	/* ENOSPC: the option is longer than the buffer, which has its first bytes then. */
	if (length != sizeof(option) && length != -ENOSPC)
		return -1;
	return option[2] >> 4;
}

#endif
