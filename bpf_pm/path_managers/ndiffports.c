// SPDX-License-Identifier: GPL-2.0-only
/* ndiffports: several subflows between the initial addresses, on different source ports (paper, 4.4.1). */
#include "path_manager.h"

#define SUBFLOWS_MAX 32

static __always_inline void ndiffports_manage(struct bpf_sock_ops *skops, struct claim *claim,
					      const struct path_parameters *p)
{
	for (u32 i = 0; i < SUBFLOWS_MAX; i++) {
		if (subflows(initial_pair(claim)) + claim->lingering >= p->value[0] ||
		    !open_initial(skops, claim))
			return;
	}
}
