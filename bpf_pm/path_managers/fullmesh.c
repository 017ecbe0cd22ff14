// SPDX-License-Identifier: GPL-2.0-only
/*
 * fullmesh: subflows between every usable local address and every known remote one of its family
 * (paper, 4.4.2). What is missing is opened by round, one round now and the next once they are live:
 * a cap that is too small for several subflows per pair leaves every pair its first one.
 */
#include "path_manager.h"

#define BEYOND 512 /* more than any count of subflows */

/*
 * How many subflows every pair has. Branch-free, and the mask is read back from the map: otherwise the
 * verifier explores both branches in every iteration.
 */
static __always_inline u32 fullmesh_round(struct claim *claim)
{
	s32 round = BEYOND;
	u32 unusable;

	for (u32 remote = 0; remote < REMOTES && is_known(claim, remote); remote++) {
		claim->scratch = ~slots_to(claim, remote);
		barrier();
		unusable = claim->scratch;
		for (u32 slot = 0; slot < LOCALS; slot++) {
			round = lesser(subflows(pair_at(claim, remote, slot)) +
					       (unusable >> slot & 1) * BEYOND,
				       round);
		}
	}
	return round;
}

static __always_inline void fullmesh_open(struct bpf_sock_ops *skops, struct claim *claim,
					  u32 remote, u32 slots, u32 round, u32 max_subflows)
{
	for (u32 slot = 0; slot < LOCALS; slot++) {
		if (slots & 1 << slot && subflows(pair_at(claim, remote, slot)) <= round &&
		    claim->total < max_subflows)
			open_subflow(skops, claim, remote, slot, claim->backups & 1 << slot);
	}
}

static __always_inline void fullmesh_manage(struct bpf_sock_ops *skops, struct claim *claim,
					    const struct path_parameters *p)
{
	u32 initial = 1 << claim->initial_slot & slots_to(claim, INITIAL);
	u32 round = fullmesh_round(claim);

	/* The application's own subflow is not a backup until this marks it, whatever its address is. */
	if (!claim->private[0] && initial & claim->backups)
		set_backup(skops, claim, INITIAL, claim->initial_slot, true);
	claim->private[0] = true;

	/* The application chose that address itself: it may be one that the rules exclude. */
	if (claim->initial_slot == LOCALS && !subflows(initial_pair(claim)) &&
	    claim->total < p->value[1])
		open_initial(skops, claim);
	if (round >= p->value[0])
		return;
	fullmesh_open(skops, claim, INITIAL, initial, round, p->value[1]);
	for (u32 r = 0; r < REMOTES && is_known(claim, r); r++)
		fullmesh_open(skops, claim, r, slots_to(claim, r), round, p->value[1]);
}
