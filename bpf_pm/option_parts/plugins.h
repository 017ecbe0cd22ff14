/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The plugins: EACH_PLUGIN(X, ...) is X(slot, name, ...) for each, EACH_TIMED_PLUGIN for those that
 * define NAME_rtt(). Where not all options fit into a packet, those in the first slots go first. For
 * third parties' files the service passes THIRD_PARTY_PLUGINS(X, ...) to the compiler, and includes
 * the files after this one (compiler_flags in pm/linux/bpf/tcp_option_maps.py).
 */
#ifndef MPTCP_PM_OPTION_PLUGINS_H
#define MPTCP_PM_OPTION_PLUGINS_H

#include "../options/initial_window.c"
#include "../options/user_timeout.c"
#include "../options/congestion_control.c"
#include "../options/delayed_ack.c"

#ifndef THIRD_PARTY_PLUGINS
#define THIRD_PARTY_PLUGINS(X, ...)
#endif

#define EACH_PLUGIN(X, ...)                   \
	X(0, initial_window, __VA_ARGS__)     \
	X(1, user_timeout, __VA_ARGS__)       \
	X(2, congestion_control, __VA_ARGS__) \
	X(3, delayed_ack, __VA_ARGS__)        \
	THIRD_PARTY_PLUGINS(X, __VA_ARGS__)

#define EACH_TIMED_PLUGIN(X, ...) X(3, delayed_ack, __VA_ARGS__)

#endif
