# SPDX-License-Identifier: Apache-2.0
"""The kernel over netlink: MPTCP events and commands, sock_diag, links and addresses."""
