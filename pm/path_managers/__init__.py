# SPDX-License-Identifier: Apache-2.0
"""Path managers: pure functions from a session and the local addresses to the wanted subflows.

Every path manager, built in or from a third party, is an entry point of the group
``mptcp_pm.path_managers`` that names a class like those in this package.
"""
