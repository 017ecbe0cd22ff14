/* SPDX-License-Identifier: GPL-2.0-only */
/* Local addresses: which are usable now. */
#ifndef MPTCP_PM_LOCALS_H
#define MPTCP_PM_LOCALS_H

#include "context.h"
#include "maps.h"

static __always_inline struct bpf_mptcp_addr *local_at(u32 slot)
{
	struct bpf_mptcp_addr *local = slot_at(slot);

	return local && local->family ? local : 0;
}

/* 127.0.0.0/8 or ::1. */
static __always_inline bool is_loopback(const struct bpf_mptcp_addr *address)
{
	const u32 *ip = address->ip6;

	if (is_ip4(address))
		return (ip[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !(ip[0] | ip[1] | ip[2]) && ip[3] == bpf_htonl(1);
}

/* The interface of a local address that is up, usable or not; 0: none. */
static __always_inline u32 interface_of(const struct bpf_mptcp_addr *address)
{
	const struct look *look = last_look();
	const struct up *up = up_of(address);

	/* Older than the last look, or, while another processor looks, not yet as new as that. */
	if (!up || !look || (!look->partial && (s32)(up->generation - look->generation) < 0))
		return 0;
	return up->ifindex;
}

/*
 * Write into the claim which local addresses are usable now, and whether the initial one is lost. An
 * address that the service never saw up is in use by other means (AnyIP, TPROXY), and not lost.
 */
static __always_inline void refresh_locals(struct claim *claim)
{
	u32 ip4 = 0, ip6 = 0, link_local = 0, backups = 0, near = 0;
	u32 initial = LOCALS, ifindex, usable = 0;
	struct bpf_mptcp_addr *local;

	ifindex = interface_of(&claim->local);
	claim->lost = claim->ifindex && !ifindex;
	if (ifindex)
		claim->ifindex = ifindex;
	barrier();
	for (u32 slot = 0; slot < LOCALS; slot++) {
		local = local_at(slot);
		if (local && same_ip(local, &claim->local)) {
			initial = slot;
			usable = local->ifindex;
		}
	}
	ifindex = claim->ifindex ?: usable;
	for (u32 slot = 0; slot < LOCALS; slot++) {
		local = local_at(slot);
		if (!local)
			continue;
		if (is_ip4(local))
			ip4 |= 1 << slot;
		else if (!is_link_local(local))
			ip6 |= 1 << slot;
		else if (local->ifindex == ifindex)
			link_local |= 1 << slot;
		if (local->flags & BPF_MPTCP_ADDR_BACKUP)
			backups |= 1 << slot;
		if (local->ifindex == ifindex)
			near |= 1 << slot;
	}
	claim->usable_ip4 = ip4;
	claim->usable_ip6 = claim->ip4_only ? 0 : ip6;
	claim->usable_link_local = link_local;
	claim->backups = backups;
	claim->near = near;
	claim->initial_slot = initial;
	barrier(); /* the verifier forgets which of the branches above were taken */
}

#endif
