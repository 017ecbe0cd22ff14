# SPDX-License-Identifier: Apache-2.0
"""The framing reads no further than a buffer goes, and finds the kernel's words."""

from __future__ import annotations

import struct

from pyroute2.netlink import nlmsg

from pm.linux.netlink import framing


def test_truncated_messages_end_the_reading() -> None:
    """A length beyond the buffer, or shorter than a header, is not followed."""
    whole = framing.pack(20, 2, 0, bytes(72) + framing.pack_attribute(19, bytes(40)))
    assert len(list(framing.messages(whole))) == 1
    for cut in range(16, len(whole)):
        assert list(framing.messages(whole[:cut])) == []
    assert list(framing.messages(struct.pack("=IHHII", 8, 20, 0, 0, 0))) == []
    assert list(framing.attributes(struct.pack("=HH", 2, 1), 0, 4)) == []


def test_a_truncated_attribute_ends_the_reading() -> None:
    """What is whole before it is read."""
    data = framing.pack_attribute(1, b"abc") + framing.pack_attribute(2, b"defgh")[:8]
    assert [(type_, data[start:end]) for type_, start, end in framing.attributes(data, 0, len(data))] == [
        (1, b"abc")
    ]


def test_the_kernels_words_are_found_behind_our_own_header() -> None:
    """NLMSG_ERROR: the errno, the header of our request, then attributes where the flag says so."""
    request = framing.HEADER.pack(100, 28, 5, 0, 0)
    attributes = framing.pack_attribute(2, b"\1\0\0\0") + framing.pack_attribute(1, b"invalid token\0")
    payload = framing.ERROR.pack(-22) + request + attributes
    for flags, words in ((framing.NLM_F_ACK_TLVS, "invalid token"), (0, "")):
        data = framing.pack(framing.NLMSG_ERROR, flags, 0, payload)
        message = framing.message_at(data, 0)
        assert message is not None
        assert framing.error_of(data, message) == 22
        assert framing.extended_ack(data, message) == words


def test_a_message_is_framed_as_pyroute2_frames_it() -> None:
    """Type, flags and sequence number are where pyroute2 puts them."""
    message = nlmsg()
    message["header"]["type"] = 28
    message["header"]["flags"] = 5
    message["header"]["sequence_number"] = 7
    message.encode()
    assert framing.pack(28, 5, 7, b"") == bytes(message.data)
