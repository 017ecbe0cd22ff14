# SPDX-License-Identifier: Apache-2.0
"""The TCP options of this package, each declared once, and how many options there can be.

Their models are in ``pm.policies.tcp_options``, the builders of their parameters in
``pm.linux.bpf.tcp_option_parameters``, their programs in bpf_pm/options/NAME.c.
"""

from __future__ import annotations

from typing import NamedTuple

KIND_USER_TIMEOUT = 28  # RFC 5482
KIND_EXPERIMENT = 253  # RFC 6994: an ExID of two bytes follows

PLUGINS_MAX = 4
"""Third parties' options in all policies together."""
ALGORITHMS_MAX = 16
"""Congestion controls that have an id on the wire."""


class BuiltInOption(NamedTuple):
    """A TCP option as policies and programs know it."""

    name: str
    """Its key in a policy's ``options``; where ``kind`` is KIND_EXPERIMENT, in ``exids`` too."""
    slot: int
    """Its place in the programs' maps. Where not all options fit into a packet, low slots go first."""
    kind: int
    sent_for: str
    """The key that makes this end send it; ``accept`` makes this end act on the peer's."""
    local: tuple[str, ...]
    """Keys that have an effect at this end alone."""
    unit: str
    """What a report gives as ``applied``, in words."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The keys of which the option needs at least one to have any effect."""
        return self.sent_for, "accept", *self.local


# An initial window is of use in the first packet only: it has the first slot.
BUILT_IN_OPTIONS = (
    BuiltInOption("user_timeout", 1, KIND_USER_TIMEOUT, "advertise", (), "in milliseconds"),
    BuiltInOption("congestion_control", 2, KIND_EXPERIMENT, "request", (), "its id"),
    BuiltInOption("initial_window", 0, KIND_EXPERIMENT, "request", ("rules",), "in segments"),
    BuiltInOption("delayed_ack", 3, KIND_EXPERIMENT, "request", (), "in microseconds"),
)
