// SPDX-License-Identifier: GPL-2.0-only
/* A plugin whose option takes as much space as one may. */
#include "option.h"

#define filler_HEADER OPTION_EXPERIMENTAL
#define filler_LENGTH OPTION_MAX

static __always_inline enum option_event filler_start(struct option *o)
{
	return OPTION_NOTHING;
}

static __always_inline void filler_compose(struct option *o, u8 *value)
{
}

static __always_inline enum option_event filler_receive(struct option *o, const u8 *value)
{
	return option_applied(o, 1);
}
