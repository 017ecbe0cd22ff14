# SPDX-License-Identifier: Apache-2.0
"""Logging, configured once: JSON lines on standard error, coloured text where that is a terminal.

An event is a fixed snake_case name and its data are keywords: ``log.info("subflow_opened", token=...)``.
All other modules take their logger from here: this is the one place that imports structlog.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pm.log_output import OutputLogger, output
from pm.names import printable, valid_text

if TYPE_CHECKING:
    from structlog.typing import Processor


class Level(StrEnum):
    """The least severe records that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Format(StrEnum):
    AUTO = "auto"  # text on a terminal, JSON elsewhere
    JSON = "json"
    TEXT = "text"


def get_logger() -> Any:
    """A structlog logger; it may be made before ``configure`` is called."""
    return _structlog().get_logger()


def configure(level: str = Level.INFO, fmt: str = Format.AUTO) -> None:
    """Set up the process's logging. ``level`` and ``fmt`` are values of ``Level`` and ``Format``.

    Messages of libraries: ``pm.log_budget.take_library_messages``.
    """
    structlog = _structlog()
    text = fmt == Format.TEXT or (fmt == Format.AUTO and _on_terminal())
    tail: list[Processor] = (
        [
            _printable,
            structlog.dev.ConsoleRenderer(
                colors=_on_terminal(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
        if text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dumps)]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            *tail,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_make_output,
        cache_logger_on_first_use=True,
    )


def write_line(text: str) -> None:
    """Write a line that is not a record, where the records go."""
    output.write(text)


def lost_lines() -> int:
    """How many lines could not be written."""
    return output.lost


def _make_output(*args: object) -> OutputLogger:
    return OutputLogger()


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _structlog() -> Any:
    """The module structlog, loaded without rich.

    structlog imports rich, and with it pygments, wherever they are installed, merely to colour
    tracebacks. rich is installed for the CLI's tables, but would cost the service 3 MiB for nothing.
    Hiding it during the import makes structlog do as it does where rich is not installed.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        import structlog

        return structlog
    sys.modules["rich"] = None  # type: ignore[assignment]  # documented: importing it fails
    try:
        import structlog
    finally:
        del sys.modules["rich"]
    return structlog


def _printable(logger: Any, method: str, record: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {
        key: printable(valid_text(value)) if isinstance(value, str) else value
        for key, value in record.items()
    }


def _dumps(record: dict[str, Any], **kwargs: Any) -> str:
    return valid_text(json.dumps(record, ensure_ascii=False, **kwargs))
