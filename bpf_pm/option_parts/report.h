/* SPDX-License-Identifier: GPL-2.0-only */
/* Which plugin is at work, and what it reports. */
#ifndef MPTCP_PM_OPTION_REPORT_H
#define MPTCP_PM_OPTION_REPORT_H

#include "loader_constants.h"
#include "maps.h"

/* Turn to the plugin in a slot; false: the policy does not use it, or it is not one of `slots`. */
static __always_inline bool select_plugin(struct option *o, u32 slot, u32 slots)
{
	o->slot = slot;
	return PLUGINS & 1 << slot && slots & 1 << slot;
}

/* Count an event of the selected plugin, and record it in the socket's state. */
static __always_inline void report(struct option *o, enum option_event event)
{
	struct option_record *record = &o->state->record;
	u32 bit = 1 << o->slot;

	if (event == OPTION_NOTHING)
		return;
	count(o->slot, event);
	if (event >= OPTION_MALFORMED) {
		record->refused |= bit;
		record->reason[o->slot & (OPTION_SLOTS - 1)] = event;
	} else if (event == OPTION_APPLIED) {
		record->applied |= bit;
	} else if (event == OPTION_RECEIVED) {
		record->received |= bit;
	} else if (event == OPTION_SENT) {
		record->sent |= bit;
	}
}

#endif
