// SPDX-License-Identifier: GPL-2.0-only
/*
 * backup: one standby subflow over another interface, with the backup flag. The flag is cleared while
 * the primary subflow has failed, and set again when it is back.
 */
#include "path_manager.h"

/* Open the first subflow that can be opened from these slots; false: none. */
static __always_inline bool backup_open(struct bpf_sock_ops *skops, struct claim *claim, u32 slots,
					bool backup)
{
	for (u32 i = 0; i < LOCALS * REMOTES; i++) {
		u32 slot = i / REMOTES, remote = i % REMOTES;

		if (slots_to(claim, remote) & slots & 1 << slot &&
		    open_subflow(skops, claim, remote, slot, backup))
			return true;
	}
	return false;
}

/* Set or clear the flag of the standby subflow; false: there is none yet. */
static __always_inline bool backup_change(struct bpf_sock_ops *skops, struct claim *claim,
					  bool backup)
{
	for (u32 i = 0; i < LOCALS * REMOTES; i++) {
		u32 slot = i / REMOTES, remote = i % REMOTES;

		if (slots_to(claim, remote) & ~claim->near & 1 << slot &&
		    pair_at(claim, remote, slot)->live &&
		    set_backup(skops, claim, remote, slot, backup))
			return true;
	}
	return false;
}

static __always_inline void backup_manage(struct bpf_sock_ops *skops, struct claim *claim,
					  const struct path_parameters *p)
{
	/* Without a working primary, the standby carries the data: no flag. */
	bool backup = claim->initial_slot < LOCALS && initial_pair(claim)->live;

	if (!subflows(initial_pair(claim)))
		open_initial(skops, claim);
	if (claim->total == subflows(initial_pair(claim))) {
		claim->private[0] = backup;
		if (!backup_open(skops, claim, claim->backups & ~claim->near, backup))
			backup_open(skops, claim, ~claim->backups & ~claim->near, backup);
	} else if (claim->private[0] != backup && backup_change(skops, claim, backup)) {
		claim->private[0] = backup;
	}
}
