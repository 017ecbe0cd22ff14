# SPDX-License-Identifier: Apache-2.0
"""Path managers that lack something, or have a name that is taken."""

from __future__ import annotations

from typing import ClassVar

from pm.path_managers.none import NonePathManager


class Broken:
    name: ClassVar[str] = "no_parameters"
    summary: ClassVar[str] = "Nothing else."


class Mesh(NonePathManager):
    name: ClassVar[str] = "fullmesh"


class Other(NonePathManager):
    name: ClassVar[str] = "one"


class Twins(NonePathManager):
    name: ClassVar[str] = "twins"
