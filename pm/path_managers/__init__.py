# SPDX-License-Identifier: GPL-2.0-only
"""Path managers: pure functions from a session and the local addresses to the subflows wanted.

Every path manager, ours or a third party's, is an entry point of the group
``mptcp_pm.path_managers`` naming a class like those in this package.
"""
