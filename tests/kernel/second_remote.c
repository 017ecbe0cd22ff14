// SPDX-License-Identifier: GPL-2.0-only
/* A path manager for test_kernel.py: a subflow from each local address to the first that was announced. */
#include "path_manager.h"

static __always_inline void second_remote_manage(struct bpf_sock_ops *skops, struct claim *claim,
						 const struct path_parameters *p)
{
	u32 slots = is_known(claim, 1) ? slots_to(claim, 1) : 0;

	for (u32 slot = 0; slot < LOCALS; slot++)
		if (slots & 1 << slot && !subflows(pair_at(claim, 1, slot)))
			open_subflow(skops, claim, 1, slot, false);
}
