# SPDX-License-Identifier: Apache-2.0
"""A path manager with a name that another package has too."""

from __future__ import annotations

from typing import ClassVar

from pm.path_managers.none import NonePathManager


class Twins(NonePathManager):
    name: ClassVar[str] = "twins"
