# SPDX-License-Identifier: Apache-2.0
"""mptcp-pm: a Multipath TCP path manager per cgroup."""

__version__ = "0.1.0"
VERSION_DATE = "2026-11-26"  # goes with the version: what is made of it has this date
