/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The path managers: EACH_PATH_MANAGER(X) is X(name) for each. For third parties' files the service
 * passes THIRD_PARTY_PATH_MANAGERS(X) to the compiler, and includes the files after this one
 * (compiler_flags in pm/linux/bpf/path_manager_maps.py).
 */
#ifndef MPTCP_PM_PATH_MANAGERS_H
#define MPTCP_PM_PATH_MANAGERS_H

#include "../path_managers/none.c"
#include "../path_managers/ndiffports.c"
#include "../path_managers/fullmesh.c"
#include "../path_managers/backup.c"

#ifndef THIRD_PARTY_PATH_MANAGERS
#define THIRD_PARTY_PATH_MANAGERS(X)
#endif

#define EACH_PATH_MANAGER(X) \
	X(none)              \
	X(ndiffports)        \
	X(fullmesh)          \
	X(backup)            \
	THIRD_PARTY_PATH_MANAGERS(X)

#endif
