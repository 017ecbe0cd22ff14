/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Changes of the host's addresses and links. The kernel calls ADDRESS_CHANGED of one session after the
 * other: whichever comes first looks, and brings the maps up to date for all.
 *
 * What is there is for the kernel to say, and written here alone once a program has looked; what may be
 * used is for the service to say, in `interfaces` and by SLOT_ALLOWED. So it does not matter which of the
 * two hears of a change first.
 */
#ifndef MPTCP_PM_FOLLOWING_H
#define MPTCP_PM_FOLLOWING_H

#include "locals.h"
#include "maps.h"

#define STATES (BPF_MPTCP_LOCAL_UP | BPF_MPTCP_LOCAL_TENTATIVE)
#define SCOPE_HOST 254 /* RT_SCOPE_HOST of <linux/rtnetlink.h> */

/* Of these, an interface has one address each that is given out here; the service may choose more. */
enum address_kind {
	KIND_IP4 = 1 << 0,
	KIND_IP6 = 1 << 1,
	KIND_LINK_LOCAL = 1 << 2,
};

static __always_inline u32 kind_of(const struct bpf_mptcp_addr *address)
{
	const u32 *ip = address->ip6;
	u32 ip4 = is_zero((ip[0] | ip[1] | (ip[2] ^ bpf_htonl(0xffff))) >> 1);

	return 1 << ((1 - ip4) << is_link_local(address));
}

/* The number of the lowest bit that is set in a set of slots. */
static __always_inline u32 first_of(u32 slots)
{
	u32 below = (slots & -slots) - 1;

	below -= below >> 1 & 0x5555;
	below = (below & 0x3333) + (below >> 2 & 0x3333);
	below = (below + (below >> 4)) & 0x0f0f;
	return (below + (below >> 8)) & 0x1f;
}

/* Note which addresses are up. Of no others has `port` no bit. */
static __always_inline void note_found(struct look *look, u32 generation)
{
	struct up up = {};

	for (u32 i = 0; i < FOUND; i++) {
		struct bpf_mptcp_addr *address = &look->found[i];

		if (!address->family)
			break;
		address->port = 1 - is_zero((address->flags & STATES) ^ BPF_MPTCP_LOCAL_UP);
		address->ip6[2] |= bpf_htonl(0xffff) & -is_zero(address->family ^ AF_INET);
		address->ip6[3] |= address->ip4;
		up.ifindex = address->ifindex;
		up.generation = generation - address->port; /* not up: as one that went */
		note_up(address, &up);
	}
}

/* Which addresses in slots are usable, and which slots are free. */
static __always_inline void note_slots(struct look *look, u32 generation)
{
	look->free = 0;
	for (u32 slot = 0; slot < LOCALS; slot++) {
		struct bpf_mptcp_addr *local = slot_at(slot);
		struct interface *interface;
		struct up *up;

		if (!local)
			return;
		if (!(local->ip6[0] | local->ip6[1] | local->ip6[2] | local->ip6[3])) {
			look->free |= 1 << slot;
			continue;
		}
		up = up_of(local);
		if (!up || up->generation != generation) {
			if (!look->partial)
				local->family = 0;
			continue;
		}
		interface = interface_at(up->ifindex);
		if (!interface) {
			local->family = 0;
			continue;
		}
		if (interface->generation != generation)
			interface->kinds = 0;
		interface->generation = generation;
		interface->kinds |= kind_of(local);
		local->ifindex = up->ifindex;
		local->family = AF_INET6 * (interface->flags & local->scope_id & 1);
	}
}

/*
 * Find an address that may have a slot, and none of whose kind on its interface has one. The number goes by
 * way of the map: the verifier follows the code behind once, not once per address.
 */
static __always_inline void find_new(struct look *look, u32 generation)
{
	look->candidate = FOUND;
	for (u32 i = 0; i < FOUND; i++) {
		struct bpf_mptcp_addr *address = &look->found[i];
		struct interface *interface;
		u32 unfit, known;

		if (!address->family)
			break;
		interface = interface_at(address->ifindex);
		if (!interface)
			continue;
		known = interface->kinds & -is_zero(interface->generation ^ generation);
		unfit = address->port | is_zero(address->scope_id ^ SCOPE_HOST) |
			(address->flags & BPF_MPTCP_LOCAL_DEPRECATED) |
			(~interface->flags & INTERFACE_USABLE) |
			(~interface->flags / INTERFACE_LINK_LOCAL & is_link_local(address)) |
			(known & kind_of(address));
		if (!unfit) {
			look->candidate = i;
			break;
		}
	}
	barrier();
}

/* Give that address a free slot; false: there is none, or no address. */
static __always_inline bool take_new(struct look *look)
{
	u32 candidate = look->candidate, slot = first_of(look->free);
	struct bpf_mptcp_addr *address, *local = slot_at(slot);
	struct interface *interface;

	if (candidate >= FOUND || !look->free || !local)
		return false;
	address = &look->found[candidate];
	interface = interface_at(address->ifindex);
	if (!interface)
		return false;
	__builtin_memcpy(local->ip6, address->ip6, sizeof(local->ip6));
	local->scope_id = SLOT_ALLOWED;
	local->id = SLOT_IDS + slot;
	local->ifindex = address->ifindex;
	local->flags = interface->flags / INTERFACE_BACKUP % 2 * BPF_MPTCP_ADDR_BACKUP;
	local->family = AF_INET6;
	return true;
}

/* ADDRESS_CHANGED: look, unless another session's program did. */
static __always_inline void follow_addresses(struct bpf_sock_ops *skops)
{
	struct look *look = last_look();
	u32 generation = bpf_mptcp_locals(skops, 0, 0);
	long number;

	if (!look || !look->follow || look->generation == generation)
		return;
	if (!lock_slots()) {
		skops->reply = BPF_MPTCP_ADDRESSES;
		return;
	}
	number = bpf_mptcp_locals(skops, look->found, sizeof(look->found));
	look->partial = number > FOUND;
	note_found(look, generation);
	note_slots(look, generation);
	find_new(look, generation);
	/* There may be another: look again soon. */
	if (take_new(look))
		skops->reply = BPF_MPTCP_ADDRESSES;
	else
		look->generation = generation;
	unlock_slots();
}

/* FULLY_ESTABLISHED: something changed while there was no session, so nobody looked. */
static __always_inline void ask_to_look(struct bpf_sock_ops *skops)
{
	struct look *look = last_look();

	if (look && look->follow && look->generation != (u32)bpf_mptcp_locals(skops, 0, 0))
		skops->reply = BPF_MPTCP_ADDRESSES;
}

#endif
