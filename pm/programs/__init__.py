# SPDX-License-Identifier: Apache-2.0
"""Which BPF program is attached to which cgroup."""
