# SPDX-License-Identifier: Apache-2.0
"""``mptcp-pm top``: interfaces, policies and sessions on a terminal, live."""
