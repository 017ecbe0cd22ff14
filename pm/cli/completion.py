# SPDX-License-Identifier: Apache-2.0
"""``mptcp-pm completion``: a completion script for the shell, made from the parser."""

from __future__ import annotations

import argparse
import sys

from pm.cli.parser import build_parser


def completion(options: argparse.Namespace) -> int:
    import shtab

    sys.stdout.write(shtab.complete(build_parser(), options.shell) + "\n")
    return 0
