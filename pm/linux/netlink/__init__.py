# SPDX-License-Identifier: GPL-2.0-only
"""The kernel over netlink: MPTCP events and commands, sock_diag, links and addresses."""
