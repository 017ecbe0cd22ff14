# SPDX-License-Identifier: Apache-2.0
"""TCP_BPF_DELACK_SEGS: what writers wait for, and how many ACKs a bulk transfer has, with it and without.

``kernel/run --mem 4G --timeout 1800 -- PYTHON -B -m tests.bench.kernel_delack [TURNS]``. Each turn measures
the receiver without the option and with 3, 8 and 64 segments, every other turn in the opposite order: over
TCP, TCP with IPv6, and a session of MPTCP, without TCP_NODELAY,

- messages in several writes at a round trip of 2 ms, to a reader that waits for them or comes late;
- requests in several writes, with an answer, at 1 ms, one after the other and with pauses;
- the first 100 kB of a connection, at 40 ms;
- 3 MB at 30 Mbit/s and 20 ms: the ACKs, which are to be fewer.

The ratios are within a turn; the intervals hold the median one with 95 % probability (sign test). A time is
to be within ``LIMIT`` of the one without the option.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median
from typing import NamedTuple

from tests.bench.rows import Interval
from tests.bench.turns import turns
from tests.lab.delayed_acks import MPTCP4, TCP4, TCP6, Ends, Receiver, Transport, message_s, request_s
from tests.lab.two_hosts import TwoHosts

USUAL = 0
SEGMENTS = (USUAL, 3, 8, 64)
LIMIT = 1.05
TRANSPORTS = {"TCP": TCP4, "TCP, IPv6": TCP6, "MPTCP": MPTCP4}
REPEATED = 5  # messages of one turn, of which the median counts
WARM_UP = 20
LATE_S, PAUSE_S = 0.02, 0.02

Turn = Callable[[int], float]
"""With the segments of the option: milliseconds, or ACKs."""


class Case(NamedTuple):
    """``parts``: what is written, in bytes beyond so many full segments."""

    name: str
    parts: tuple[tuple[int, int], ...]
    late_s: float = 0

    def sizes(self, transport: Transport) -> list[int]:
        return [full * transport.mss + more for full, more in self.parts]


MESSAGES = (
    Case("header and body", ((0, 100), (0, 400))),
    Case("one full segment, body", ((1, 0), (0, 400))),
    Case("two full segments, body", ((2, 0), (0, 400))),
    Case("small, large, small", ((0, 400), (3, 0), (0, 400))),
    Case("small, one and a rest", ((0, 100), (1, 500))),
    Case("header and body, late reader", ((0, 100), (0, 400)), LATE_S),
    Case("one full segment, body, late reader", ((1, 0), (0, 400)), LATE_S),
)
REQUESTS = (
    Case("header and body", ((0, 100), (0, 400))),
    Case("one full segment, body", ((1, 0), (0, 400))),
    Case("one and a rest, body", ((1, 500), (0, 400))),
    Case("three and a rest, body", ((3, 100), (0, 400))),
)


def cases(receiver: Receiver) -> Iterator[tuple[str, Turn]]:
    """What is measured; the path is set up when the iterator comes to the first case that needs it."""
    ends = _connections(receiver, "2ms")
    for case in MESSAGES:
        sizes = case.sizes(receiver.transport)
        message = partial(message_s, parts=sizes, read_after_s=case.late_s)
        yield f"message: {case.name}", _typical(ends, message)
    ends = _connections(receiver, "1ms")
    for case in REQUESTS:
        sizes = case.sizes(receiver.transport)
        yield f"request: {case.name}", _typical(ends, partial(request_s, parts=sizes))
        yield f"request after a pause: {case.name}", _typical(ends, partial(request_s, parts=sizes), PAUSE_S)
    receiver.netem("delay", "40ms")
    yield "first 100 kB", lambda segments: 1e3 * receiver.start_s(segments)
    receiver.netem("rate", "30mbit", "delay", "20ms")
    yield "ACKs of 3 MB", lambda segments: receiver.acks(segments)[0]


def _connections(receiver: Receiver, delay: str) -> dict[int, Ends]:
    receiver.netem("delay", delay)
    return dict(zip(SEGMENTS, receiver.warmed_up(SEGMENTS, delay), strict=True))


def _typical(ends: Mapping[int, Ends], seconds: Callable[[Ends], float], pause_s: float = 0) -> Turn:
    """Milliseconds, the median of a few, after what the receiver's measurements need to settle."""

    def once(segments: int) -> float:
        time.sleep(pause_s)
        return 1e3 * seconds(ends[segments])

    for _ in range(WARM_UP):
        for segments in SEGMENTS:
            once(segments)
    return lambda segments: median(once(segments) for _ in range(REPEATED))


def measure(turn: Turn, times: int) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {segments: [] for segments in SEGMENTS}
    for number in range(times):
        for segments in SEGMENTS if number % 2 == 0 else SEGMENTS[::-1]:
            found[segments].append(turn(segments))
    return found


def bench(times: int) -> Iterator[str]:
    yield "| | without | " + " | ".join(f"{segments} segments" for segments in SEGMENTS[1:]) + " |"
    yield "|---" * (len(SEGMENTS) + 1) + "|"
    missed = []
    for name, transport in TRANSPORTS.items():
        with TwoHosts() as hosts, Receiver(hosts, transport) as receiver:
            for case, turn in cases(receiver):
                found = measure(turn, times)
                cells = [f"{median(found[USUAL]):.4g}"]
                for segments in SEGMENTS[1:]:
                    ratio = Interval.of([a / b for a, b in zip(found[segments], found[USUAL], strict=True)])
                    cells.append(str(ratio))
                    if "ACKs" not in case and ratio.low > LIMIT:
                        missed.append(f"{name}, {case}, {segments} segments: {ratio}")
                yield f"| {name}, {case} | " + " | ".join(cells) + " |"
    yield f"above {LIMIT}: " + ("; ".join(missed) or "none")


if __name__ == "__main__":
    for line in bench(turns(__doc__, 15)):
        print(line, flush=True)
