# SPDX-License-Identifier: GPL-2.0-only
"""Which BPF program is attached to which cgroup."""
