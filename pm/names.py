# SPDX-License-Identifier: Apache-2.0
"""Names that others choose (of cgroups, interfaces, files) as text, and back.

To the kernel they are bytes. Inside the service, in globs, REST, logs and the command line they are text, in
one notation.
"""

from __future__ import annotations

import re


def show_name(name: bytes) -> str:
    """UTF-8 is shown unchanged. Any other byte becomes U+FFFD and two hex digits.

    So do the three bytes of U+FFFD itself: ``read_name`` gives the same name back.
    """
    escape = "".join(f"\ufffd{byte:02x}" for byte in "\ufffd".encode())
    return valid_text(name.decode(errors="surrogateescape").replace("\ufffd", escape))


def valid_text(text: str) -> str:
    """The same text; surrogates, which no encoding takes, as ``show_name`` shows the bytes they stand for."""

    def escape(match: re.Match[str]) -> str:
        lone = "\udc80" <= match[0] <= "\udcff"
        stands_for = match[0].encode(errors="surrogateescape" if lone else "surrogatepass")
        return "".join(f"\ufffd{byte:02x}" for byte in stands_for)

    return text if text.isascii() else re.sub("[\ud800-\udfff]", escape, text)


def read_name(text: str) -> bytes:
    """The name that ``show_name`` shows as this text."""
    escaped = re.sub("\ufffd([89a-f][0-9a-f])", lambda m: chr(0xDC00 + int(m[1], 16)), text)
    return escaped.encode(errors="surrogateescape")


def printable(text: str) -> str:
    """Text for a terminal: a name must not contain commands to it, nor what hides other text."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
