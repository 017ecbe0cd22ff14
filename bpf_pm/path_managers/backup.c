// SPDX-License-Identifier: GPL-2.0-only
/*
 * backup: one standby subflow over another interface, with the backup flag. The flag is cleared while the
 * primary subflow has failed, or the peer made it a backup, and set again when it is back. A standby that
 * fails is replaced by that of the next interface. The primary's own interface is the last resort, once
 * the primary is lost.
 */
#include "path_manager.h"

#define BACKUP_PAIRS (LOCALS * REMOTES) /* a pair's number is slot * REMOTES + remote */
#define NO_PAIR (8 * BACKUP_PAIRS)
#define TRIES 3 /* at once, where the kernel refuses to open a pair */

/*
 * The first pair of these slots that is there (`live`), or of which there is no subflow, none on the way
 * and none failed. Interfaces marked as backup come first, the primary's own comes last, and behind all
 * the pair of the standby before. Branch-free, as fullmesh_round() is.
 */
static __always_inline u32 backup_pair(struct claim *claim, u32 slots, bool live)
{
	u32 last = claim->private[1], unusable, free, rank;
	s32 best = NO_PAIR;

	for (u32 remote = 0; remote < REMOTES && is_known(claim, remote); remote++) {
		claim->scratch = ~(slots_to(claim, remote) & slots);
		if (remote == INITIAL)
			claim->scratch |= 1 << claim->initial_slot; /* the primary's */
		barrier();
		unusable = claim->scratch;
		for (u32 slot = 0; slot < LOCALS; slot++) {
			struct pair *pair = pair_at(claim, remote, slot);
			u32 number = slot * REMOTES + remote;

			free = is_zero(live ? is_zero(pair->live) : subflows(pair));
			rank = (~claim->backups >> slot & 1) + (claim->near >> slot & 1) * 2 +
			       is_zero((number + 1) ^ last) * 4;
			best = lesser(number + rank * BACKUP_PAIRS +
					      (1 - free | (unusable >> slot & 1)) * NO_PAIR,
				      best);
		}
	}
	return best;
}

/* Open the standby. */
static __always_inline void backup_open(struct bpf_sock_ops *skops, struct claim *claim, u32 slots,
					bool backup)
{
	for (u32 i = 0; i < TRIES; i++) {
		u32 pair = backup_pair(claim, slots, false);

		if (pair >= NO_PAIR)
			return;
		claim->private[1] = pair % BACKUP_PAIRS + 1;
		if (open_subflow(skops, claim, pair % REMOTES, pair / REMOTES % LOCALS, backup))
			return;
	}
}

/* Set or clear the flag of the standby; false: it is still on its way. */
static __always_inline bool backup_change(struct bpf_sock_ops *skops, struct claim *claim,
					  bool backup)
{
	u32 pair = backup_pair(claim, ~0, true);

	return pair < NO_PAIR &&
	       set_backup(skops, claim, pair % REMOTES, pair / REMOTES % LOCALS, backup);
}

static __always_inline void backup_manage(struct bpf_sock_ops *skops, struct claim *claim,
					  const struct path_parameters *p)
{
	/* Without a working primary that the peer wants, the standby carries the data: no flag. */
	bool backup = initial_pair(claim)->live && !claim->lost && !claim->shunned;
	/* Lost for good: the address went, or the peer's did. */
	bool lost = claim->lost || (claim->unreachable && !counted(initial_pair(claim)));

	if (!subflows(initial_pair(claim))) {
		claim->shunned = 0; /* the peer has not spoken of the next one */
		open_initial(skops, claim);
	}
	if (claim->total == counted(initial_pair(claim))) {
		backup_open(skops, claim, lost ? ~0 : ~claim->near, backup);
		claim->private[0] = backup;
	} else if (claim->private[0] != backup && backup_change(skops, claim, backup)) {
		claim->private[0] = backup;
	}
}
