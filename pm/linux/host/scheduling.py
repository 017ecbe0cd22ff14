# SPDX-License-Identifier: Apache-2.0
"""How soon the scheduler runs this thread after a wake-up."""

from __future__ import annotations

import ctypes
import os

SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "s390x": 345, "ppc64le": 355}
SLICE_NS = 100_000  # the kernel's smallest
LONG_SLICE_NS = 10_000_000  # usual are 0.7 to 3 ms, by the number of processors


class SchedAttr(ctypes.Structure):
    """struct sched_attr (include/uapi/linux/sched/types.h), first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime_ns", ctypes.c_uint64),
        ("deadline_ns", ctypes.c_uint64),
        ("period_ns", ctypes.c_uint64),
    )


class Scheduling:
    """Of this thread, and of those it starts later. One that has a class of its own keeps it.

    The nice value stays, and thus no other process gets less of the CPU. This needs no privilege; kernels
    before 6.12 ignore the slice.
    """

    def __init__(self) -> None:
        self._is_usual = os.sched_getscheduler(0) == os.SCHED_OTHER

    def choose(self, *, in_no_hurry: bool) -> bool:
        """False if the thread has a class of its own, or if the kernel refuses.

        In a hurry, it runs sooner after a wake-up, but not more: its time slice is 0.1 ms. In no hurry, its
        wake-ups preempt nobody (SCHED_BATCH), and others' preempt it: its slice is longer than theirs.
        """
        number = SYS_SCHED_SETATTR.get(os.uname().machine)
        if number is None or not self._is_usual:
            return False
        attr = SchedAttr(
            size=ctypes.sizeof(SchedAttr),
            policy=os.SCHED_BATCH if in_no_hurry else os.SCHED_OTHER,
            nice=os.getpriority(os.PRIO_PROCESS, 0),
            runtime_ns=LONG_SLICE_NS if in_no_hurry else SLICE_NS,
        )
        result: int = ctypes.CDLL(None).syscall(number, 0, ctypes.byref(attr), 0)
        return result == 0
