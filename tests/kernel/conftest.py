# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

# The tests of ``inside`` are for the patched kernel: test_kernel.py starts it and runs them there.
PATCHED = Path("/proc/sys/net/mptcp/bpf_max_subflows").exists()
collect_ignore_glob = [] if PATCHED else ["inside/*"]
