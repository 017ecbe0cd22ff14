# SPDX-License-Identifier: Apache-2.0
"""The classifiers in the kernel: one per policy, the map of sessions that they fill, keepalives."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pm.kernel import FinalFigures
from pm.linux.bpf import libbpf
from pm.linux.bpf.attachments import Attachments
from pm.linux.bpf.layouts import (
    FINAL_FIGURES,
    KEEPALIVE,
    POLICY,
    POLICY_ID_PLACEHOLDER,
    Counter,
    SessionKey,
    SessionValue,
)
from pm.linux.bpf.objects import BpfObject
from pm.linux.bpf.pins import Pins
from pm.linux.bpf.ring_buffer import RingBuffer
from pm.linux.ip import ip_text, packed_ip
from pm.model import Figures
from pm.policies.model import Policy


class Found(NamedTuple):
    """What a classifier recorded: the policy's name, the socket's device (0: none) and its mark."""

    policy: str
    device: int
    mark: int


class Classifier(Attachments[str]):
    """A program's key is the name of its policy. Made by ``Classifier.open``."""

    link_prefix = "link-"
    entry = "classify"
    layout = ("include/session.h", "include/keepalive.h", "include/final_figures.h")

    def __init__(self, program: BpfObject, *, netns_cookie: int, pins: Pins | None, log_file: Path) -> None:
        super().__init__(program, netns_cookie=netns_cookie, pins=pins, log_file=log_file)
        self._names: dict[int, str] = {}
        self._key = SessionKey()
        self._value = SessionValue()
        self._key_ref = ctypes.byref(self._key)
        self._value_ref = ctypes.byref(self._value)
        self._take = libbpf.library().bpf_map_lookup_and_delete_elem
        self._finals: RingBuffer | None = None

    def constants(self, key: str) -> Mapping[int, int]:
        # Kept when the program goes: what it recorded may still be asked for.
        self._names[policy_id(key)] = key
        return {POLICY_ID_PLACEHOLDER: policy_id(key)}

    def write(self, policies: Iterable[Policy]) -> None:
        """The keepalives of these policies and no others. Raises KernelRefused."""
        self.fill("keepalives", [keepalive_entry(policy) for policy in policies])

    def take(self, local: str, local_port: int, remote: str, remote_port: int) -> Found | None:
        """What was recorded of an initial subflow, or None; the map's entry is deleted.

        IP addresses are text, ports in host order.
        """
        self._key.fill(packed_ip(local), local_port, packed_ip(remote), remote_port)
        if self._take(self._maps["sessions"], self._key_ref, self._value_ref) < 0:
            return None
        name = self._names.get(self._value.policy)
        return Found(name, self._value.device, self._value.mark) if name is not None else None

    def fileno(self) -> int:
        """The descriptor that is readable while final figures wait."""
        return self._maps["finals"]

    def read_finals(self, limit: int) -> list[FinalFigures]:
        """The final figures of subflows that wait, at most ``limit``; never blocks. Raises KernelRefused."""
        self._finals = self._finals or RingBuffer(self._maps["finals"])
        return [parse_final(record) for record in self._finals.read(limit)]

    def close(self, *, keep: bool) -> None:
        if self._finals:
            self._finals.close()
            self._finals = None
        super().close(keep=keep)

    def counters(self) -> dict[str, int]:
        """How many sessions were ``classified``, and how many the map did not take (``failed``).

        ``finals_lost`` counts final figures for which the ring buffer had no room.
        """
        return {c.name.lower(): libbpf.read_counter(self._maps["counters"], c) for c in Counter}


def parse_final(record: bytes) -> FinalFigures:
    """Pure."""
    local, remote, local_port, remote_port, *counts = FINAL_FIGURES.unpack(record)
    retransmits, acked, received, rtt_us = counts
    figures = Figures(acked, received, retransmits, rtt_us)
    return FinalFigures(ip_text(local), local_port, ip_text(remote), remote_port, figures)


def keepalive_entry(policy: Policy) -> dict[bytes, bytes]:
    """What the map ``keepalives`` has for a policy. Pure."""
    if policy.keepalive is None:
        return {}
    idle_s, interval_s = round(policy.keepalive.idle), round(policy.keepalive.interval)
    value = KEEPALIVE.pack(idle_s, interval_s, policy.keepalive.count)
    return {POLICY.pack(policy_id(policy.name)): value}


def policy_id(name: str) -> int:
    """The 64-bit id of a policy in the kernel, computed from its name alone."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
