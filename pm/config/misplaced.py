# SPDX-License-Identifier: Apache-2.0
"""Where a key belongs that is known, but not where it stands: it is a level too high or too low."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pm.config.document import Document, Loc
from pm.config.schema import Schema, alternatives, variant

MOST = 3  # places that a message names


def where_it_belongs(document: Document, schema: Schema, loc: Loc) -> str:
    """The place of the key at the end of ``loc``, in words; "" where nothing has such a key."""
    *parent, key = loc
    levels = [None if isinstance(part, int) else part for part in parent]  # None: each item of a list
    places = list(_places(schema, key))
    if not places:
        return ""
    shared = max(_shared(place, levels) for place in places)
    nearest = [place for place in places if _shared(place, levels) == shared]
    chosen = _path_manager(document.data, loc)
    nearest = [place for place in nearest if chosen in place] or nearest
    least = min(map(len, nearest))
    below = [place[shared:] for place in sorted(nearest, key=len) if len(place) <= least + 1]
    if [] in below:
        return f"it belongs beside `{levels[shared]}`"
    names = dict.fromkeys(_dotted(place) for place in below)
    return f"it belongs below {alternatives(list(names)[:MOST])}"


def _places(schema: Schema, key: object) -> Iterator[list[str | None]]:
    """Every mapping of the schema that has the key."""
    if found := variant(schema, "array"):
        yield from ([None, *rest] for rest in _places(found.get("items", {}), key))
    properties = (variant(schema, "object") or {}).get("properties", {})
    if key in properties:
        yield []
    for name, below in properties.items():
        yield from ([name, *rest] for rest in _places(below, key))


def _shared(place: list[str | None], levels: list[str | None]) -> int:
    """How many levels they have in common."""
    most = min(len(place), len(levels))
    return next((n for n in range(most) if place[n] != levels[n]), most)


def _path_manager(data: Any, loc: Loc) -> str | None:
    """The name of the path manager that the policy of a place has, if it is written as a name."""
    try:
        chosen = data["policies"][loc[1]]["path_manager"]
    except (LookupError, TypeError):
        return None
    return chosen if isinstance(chosen, str) else None


def _dotted(place: list[str | None]) -> str:
    return ".".join(part for part in place if part)
