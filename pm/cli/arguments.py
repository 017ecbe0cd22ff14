# SPDX-License-Identifier: Apache-2.0
"""Arguments that several commands have, and how their values are read."""

from __future__ import annotations

import argparse
from enum import StrEnum

from pm.notation import parse_duration


def values(choices: type[StrEnum]) -> list[str]:
    return [choice.value for choice in choices]


def token_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("token", metavar="TOKEN", help="token of the session")


def subflow_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="id of the subflow, as `session TOKEN` shows it")


def delay(text: str) -> float | None:
    return None if text == "off" else parse_duration(text)


delay.__name__ = "duration, such as 5s, or off,"


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


positive.__name__ = "positive number"  # argparse calls the type so in its messages


WEB = (
    "show the page in a browser: serve it on a loopback port until Ctrl-C, for the user who runs this; the "
    "address that is printed logs in once, within a minute"
)


def web_options(parser: argparse.ArgumentParser) -> None:
    """Those of ``web``."""
    parser.add_argument(
        "--port", metavar="N", type=port, default=0, help="port on 127.0.0.1 (default: any free one)"
    )
    parser.add_argument(
        "--no-browser",
        action="store_true",
        help="do not open a browser (default: open one where $DISPLAY or $WAYLAND_DISPLAY is set)",
    )


def port(text: str) -> int:
    """Raises ArgumentTypeError."""
    if text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port: 1 to 65535")
