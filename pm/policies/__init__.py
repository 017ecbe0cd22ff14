# SPDX-License-Identifier: GPL-2.0-only
"""What a policy is, and which policy owns a cgroup. Pure."""
