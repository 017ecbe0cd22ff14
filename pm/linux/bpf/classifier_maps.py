# SPDX-License-Identifier: GPL-2.0-only
"""The classifiers in the kernel: one program per policy, and the map of sessions that they fill."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping
from pathlib import Path

from pm.linux.bpf import libbpf
from pm.linux.bpf.attachments import Attachments
from pm.linux.bpf.layouts import POLICY_ID_PLACEHOLDER, Counter, SessionKey, SessionValue
from pm.linux.bpf.objects import BpfObject
from pm.linux.ip import packed_ip


class Classifier(Attachments):
    """``attached`` has names of policies. Made by ``Classifier.open``."""

    link_prefix = "link-"
    entry = "classify"

    def __init__(self, program: BpfObject, *, netns_cookie: int, pins: Path | None, log_file: Path) -> None:
        super().__init__(program, netns_cookie=netns_cookie, pins=pins, log_file=log_file)
        self._names: dict[int, str] = {}
        self._prepare_lookup()

    def constants(self, name: str) -> Mapping[int, int]:
        # Kept when the program goes: what it recorded may still be asked for.
        self._names[policy_id(name)] = name
        return {POLICY_ID_PLACEHOLDER: policy_id(name)}

    def _prepare_lookup(self) -> None:
        self._key = SessionKey()
        self._value = SessionValue()
        self._key_ref = ctypes.byref(self._key)
        self._value_ref = ctypes.byref(self._value)
        self._take = libbpf.library().bpf_map_lookup_and_delete_elem

    def take(self, local: str, local_port: int, remote: str, remote_port: int) -> str | None:
        """The policy that classified an initial subflow, or None; the entry is gone afterwards.

        IP addresses are text, ports in host order.
        """
        self._key.fill(packed_ip(local), local_port, packed_ip(remote), remote_port)
        if self._take(self._maps["sessions"], self._key_ref, self._value_ref) < 0:
            return None
        return self._names.get(self._value.policy)

    def counters(self) -> dict[str, int]:
        """How many sessions were ``classified``, and how many the map did not take (``failed``)."""
        totals = {}
        values = (ctypes.c_uint64 * libbpf.possible_cpus())()
        for counter in Counter:
            libbpf.lookup(self._maps["counters"], ctypes.c_uint32(counter), values)
            totals[counter.name.lower()] = sum(values)
        return totals


def policy_id(name: str) -> int:
    """64 bits that stand for a policy's name in the kernel: the same whoever computes them."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
