# SPDX-License-Identifier: Apache-2.0
"""When Python looks for cycles of objects that nobody uses: seldom, for the event loop stands still then.

Sessions and subflows are in no cycles: counting references frees them. But each full collection looks at all
of them, and with 10,000 sessions that takes 50 ms to 200 ms, in which no join is answered. Python does one
each time that the number of objects has grown by a quarter.

Here young objects are looked at in larger lots, and a full collection comes once in a million new objects.
What survives it is taken out (``gc.freeze``), and is looked at in one of ``EVERYTHING_EVERY`` only: what has
become a cycle since waits until then.
"""

from __future__ import annotations

import gc

THRESHOLDS = (2000, 10, 50)
"""New objects, young collections and middle ones, after which each of the three generations is collected."""
EVERYTHING_EVERY = 10


class _Old:
    """What the collector calls around each of its collections."""

    def __init__(self) -> None:
        self.collections = 0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] != len(THRESHOLDS) - 1:
            return
        if phase == "start":
            self.collections += 1
            if self.collections % EVERYTHING_EVERY == 0:
                gc.unfreeze()
        else:
            gc.freeze()


def collect_seldom() -> None:
    """Once the service is ready: what there is then mostly stays as long as it runs."""
    gc.callbacks.append(_Old())
    gc.set_threshold(*THRESHOLDS)
    gc.collect()
