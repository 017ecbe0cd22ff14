# SPDX-License-Identifier: GPL-2.0-only
"""mptcp-pm: a Multipath TCP path manager per cgroup."""

__version__ = "0.1.0"
