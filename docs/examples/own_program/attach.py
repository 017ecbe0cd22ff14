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

flags = [f"-I{BPF_PM / 'include'}", "-DLINUX_VERSION_CODE=0"]  # no kernel asks a sock_ops program for it
program = BPF(src_file=str(HERE / "second_subflow.c"), cflags=flags)
function = program.load_func("second_subflow", BPF.SOCK_OPS)
signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # what is attached stays until it is detached
cgroup = os.open(sys.argv[1], os.O_RDONLY)
program.attach_func(function, cgroup, BPFAttachType.CGROUP_SOCK_OPS)
print("attached", flush=True)
signal.sigwait(ENDS)
program.detach_func(function, cgroup, BPFAttachType.CGROUP_SOCK_OPS)
