// SPDX-License-Identifier: GPL-2.0-only
/*
 * An example of a third party's path manager: subflows to the server's initial address from the local
 * addresses of other interfaces than the initial one's, `subflows` of them in all.
 */
#include "path_manager.h"

static __always_inline void second_interface_manage(struct bpf_sock_ops *skops, struct claim *claim,
						    const struct path_parameters *p)
{
	u32 slots = slots_to(claim, INITIAL) & ~claim->near;

	for (u32 slot = 0; slot < LOCALS; slot++) {
		if (claim->total > PARAMETER(p, second_interface_subflows))
			return; /* `total` includes the initial one */
		if (slots & 1 << slot && !subflows(pair_at(claim, INITIAL, slot)))
			open_subflow(skops, claim, INITIAL, slot, false);
	}
}
