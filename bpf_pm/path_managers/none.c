// SPDX-License-Identifier: GPL-2.0-only
/* none: opens nothing. Also for path managers in Python only, whose subflows the service opens. */
#include "path_manager.h"

static __always_inline void none_manage(struct bpf_sock_ops *skops, struct claim *claim,
					const struct path_parameters *p)
{
}
