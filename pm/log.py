# SPDX-License-Identifier: GPL-2.0-only
"""Logging, configured once: JSON lines on standard error, coloured text where that is a terminal.

An event is a fixed snake_case name, its data are keywords: ``log.info("subflow_opened", token=...)``.
"""

from __future__ import annotations

import json
import logging
import sys
from enum import StrEnum
from typing import Any

import structlog


class Level(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Format(StrEnum):
    AUTO = "auto"  # text on a terminal, JSON elsewhere
    JSON = "json"
    TEXT = "text"


def configure(level: str = Level.INFO, fmt: str = Format.AUTO) -> None:
    """Set the process's logging up. ``level`` and ``fmt`` are values of ``Level`` and ``Format``.

    Records of libraries that use ``logging`` (asyncio's, aiohttp's) come out the same way, as
    event ``library_message``, from level warning on.
    """
    text = fmt == Format.TEXT or (fmt == Format.AUTO and sys.stderr.isatty())
    tail: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=logging.WARNING, force=True)


def _dumps(record: dict[str, Any], **kwargs: Any) -> str:
    return json.dumps(record, ensure_ascii=False, **kwargs)


class _ToStructlog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno,
            "library_message",
            logger=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info,
        )
