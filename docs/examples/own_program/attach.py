# SPDX-License-Identifier: Apache-2.0
"""``python3 attach.py /sys/fs/cgroup/DIRECTORY``: attaches second_subflow.c until it is interrupted."""

import os
import signal
import sys
from pathlib import Path

ENDS = (signal.SIGINT, signal.SIGTERM)
HERE = Path(__file__).resolve().parent
BPF_PM = HERE.parents[2] / "bpf_pm"
# The few headers of a kernel that it needs: those of this machine need not be installed.
os.environ["BCC_KERNEL_SOURCE"] = str(BPF_PM / "stub")

from bcc import BPF, BPFAttachType  # noqa: E402  # it reads the environment
from bcc.libbcc import lib  # noqa: E402

flags = [f"-I{BPF_PM / 'include'}", "-DLINUX_VERSION_CODE=0"]  # no kernel asks a sock_ops program for it
program = BPF(src_file=str(HERE / "second_subflow.c"), cflags=flags)
function = program.load_func("second_subflow", BPF.SOCK_OPS)
signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
cgroup = os.open(sys.argv[1], os.O_RDONLY)
# A link, because only a link can own sessions. It ends with this process.
if lib.bpf_link_create(function.fd, cgroup, BPFAttachType.CGROUP_SOCK_OPS, None) < 0:
    sys.exit(f"cannot attach to {sys.argv[1]}")
print("attached", flush=True)
signal.sigwait(ENDS)
