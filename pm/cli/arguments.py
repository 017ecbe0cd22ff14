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
