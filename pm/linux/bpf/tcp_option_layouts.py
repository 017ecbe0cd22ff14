# SPDX-License-Identifier: Apache-2.0
"""What option programs and the service share; bpf_pm/include/option.h, bpf_pm/options/ and
bpf_pm/option_parts/ have the same (test_layouts.py)."""

from __future__ import annotations

import ctypes
from enum import IntEnum

from pm.policies.built_in_options import ALGORITHMS_MAX, BUILT_IN_OPTIONS, PLUGINS_MAX

PARAMETER_BYTES = 344
EVENTS_PER_SLOT = 16
CA_NAME_BYTES = 16

PLUGINS_PLACEHOLDER = 0x6D707463705F706C
BUILT_IN = tuple(option.name for option in sorted(BUILT_IN_OPTIONS, key=lambda option: option.slot))
"""Plugins of this package by slot; third parties' follow. Where not all options fit into a packet, those
in the first slots go first: an initial window is of use in the first packet only."""
SLOTS = len(BUILT_IN) + PLUGINS_MAX

_u8, _u16 = ctypes.c_uint8, ctypes.c_uint16
_u32, _u64 = ctypes.c_uint32, ctypes.c_uint64


class OptionEvent(IntEnum):
    """``enum option_event``. From MALFORMED on: why a peer's option was refused."""

    SENT = 1
    RECEIVED = 2
    APPLIED = 3
    NO_SPACE = 4
    UNCONFIRMED = 5
    MALFORMED = 6
    UNKNOWN = 7
    NOT_ALLOWED = 8
    UNTRUSTED = 9
    LATE = 10
    APPLICATION = 11
    KERNEL = 12


class PrefixKind(IntEnum):
    """``enum prefix_kind``: what a prefix in the map ``prefixes`` is for."""

    TRUSTED = 0
    LOCAL = 1


class OptionParameters(ctypes.Structure):
    """``struct option_parameters``; ``plugin`` holds one of the structures below."""

    _fields_ = [
        ("search", _u8 * 4),
        ("sends", _u8),
        ("listens", _u8),
        ("pad", _u8 * 2),
        ("plugin", _u8 * PARAMETER_BYTES),
    ]


class PolicyParameters(ctypes.Structure):
    """``struct policy_parameters``: a value of the map ``parameters``."""

    _fields_ = [("slots", OptionParameters * SLOTS)]


class OptionRecord(ctypes.Structure):
    """``struct option_record``, what happened on a socket: masks have a bit per slot."""

    _fields_ = [
        ("policy", _u64),
        ("sent", _u32),
        ("received", _u32),
        ("applied", _u32),
        ("refused", _u32),
        ("value", _u32 * SLOTS),
        ("reason", _u8 * SLOTS),
    ]


class OptionState(ctypes.Structure):
    """``struct option_state``: a value of the map ``states``."""

    _fields_ = [
        ("sending", _u32),
        ("listening", _u32),
        ("timing", _u32),
        ("reserved", _u32),
        ("outstanding", _u32),
        ("sequence", _u32),
        ("own_flags", _u32),
        ("packets", _u16),
        ("copies", _u8),
        ("with_data", _u8),
        ("private", _u32 * 2 * SLOTS),
        ("record", OptionRecord),
    ]


class PrefixKey(ctypes.Structure):
    """``struct prefix_key``: ``length`` counts bits from ``kind`` on."""

    _fields_ = [("length", _u32), ("kind", _u32), ("policy", _u32 * 2), ("ip", _u8 * 16)]


PREFIX_FIXED_BITS = 8 * (ctypes.sizeof(PrefixKey) - 4 - 16)


class UserTimeoutParameters(ctypes.Structure):
    _fields_ = [("advertised_ms", _u32), ("lower_ms", _u32), ("upper_ms", _u32)]


class Algorithm(ctypes.Structure):
    _fields_ = [("id", _u8), ("allowed", _u8), ("pad", _u8 * 2), ("name", ctypes.c_char * CA_NAME_BYTES)]


class CongestionControlParameters(ctypes.Structure):
    _fields_ = [
        ("requested", _u8),
        ("count", _u8),
        ("pad", _u8 * 2),
        ("usual", ctypes.c_char * CA_NAME_BYTES),
        ("algorithms", Algorithm * ALGORITHMS_MAX),
    ]


class InitialWindowParameters(ctypes.Structure):
    _fields_ = [("requested", _u32), ("has_rules", _u32)]


class DelayedAckParameters(ctypes.Structure):
    _fields_ = [
        ("fraction", _u8),
        ("segments", _u8),
        ("counts_segments", _u8),
        ("pad", _u8),
        ("least_us", _u32),
    ]
