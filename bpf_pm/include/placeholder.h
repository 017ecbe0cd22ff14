/* SPDX-License-Identifier: GPL-2.0-only */
/* Constants that the loader puts into a program (pm/linux/bpf/layouts.py). */
#ifndef _BPF_PM_PLACEHOLDER_H
#define _BPF_PM_PLACEHOLDER_H

/* A 64-bit constant that no optimiser sees through, so that the loader finds it. */
#define placeholder(value)                                  \
	({                                                  \
		u64 __loaded;                               \
		asm("%0 = " #value " ll" : "=r"(__loaded)); \
		__loaded;                                   \
	})
#define NETNS_COOKIE placeholder(0x6d707463705f6e73)
#define POLICY_ID placeholder(0x6d707463705f6964)

#endif
