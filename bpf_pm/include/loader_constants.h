/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Constants whose values the loader puts into a compiled program: it looks for the 64-bit numbers
 * below (pm/linux/bpf/layouts.py, pm/linux/bpf/tcp_option_layouts.py) in the instructions.
 */
#ifndef MPTCP_PM_LOADER_CONSTANTS_H
#define MPTCP_PM_LOADER_CONSTANTS_H

#define NETNS_COOKIE_PLACEHOLDER 0x6d707463705f6e73
#define POLICY_ID_PLACEHOLDER 0x6d707463705f6964
#define PLUGINS_PLACEHOLDER 0x6d707463705f706c

/* The assembly hides the number from the compiler, which would compute with it otherwise. */
#define LOADER_CONSTANT(placeholder)                                   \
	({                                                             \
		u64 constant;                                          \
		asm("%0 = %1 ll" : "=r"(constant) : "i"(placeholder)); \
		constant;                                              \
	})

/* The network namespace whose sessions and sockets the program serves. */
#define NETNS_COOKIE LOADER_CONSTANT(NETNS_COOKIE_PLACEHOLDER)
/* The policy that the program belongs to. */
#define POLICY_ID LOADER_CONSTANT(POLICY_ID_PLACEHOLDER)
/* The policy's option plugins, a bit per slot; 0: the program only keeps outer policies away. */
#define PLUGINS LOADER_CONSTANT(PLUGINS_PLACEHOLDER)

#endif
