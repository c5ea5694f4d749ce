"""The log of the process: lines for people at a terminal and in the journal, or JSON when asked.

No traceback shows what a variable holds, since that may be a secret.
"""

from __future__ import annotations

import logging
import os
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from syncd.sync import told

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # sd-daemon(3)


def set_up_logs(form: str = "auto", level: int = logging.INFO) -> None:
    """Send structlog, and what libraries log, to standard error.

    `form` is `console`, `journal`, `json`, or `auto`: `journal` under systemd, else `console`.
    `level` bounds what syncd itself says; libraries only warn.
    """
    if form == "auto":
        form = "journal" if "JOURNAL_STREAM" in os.environ else "console"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
    ]
    if form != "journal":  # the journal has a time of its own
        shared.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    if form != "console":
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _last(form),
            ],
        )
    )
    # A line that cannot be written, as on a full disk, is lost; a traceback about it would be, too.
    logging.raiseExceptions = False
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("syncd").setLevel(level)
    # It warns of each attempt to connect; whoever asked for the connection tells how that ended.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def _last(form: str) -> Processor:
    if form == "json":
        return structlog.processors.JSONRenderer()
    if form == "journal":
        return _journal_lines
    # Rich's tracebacks would show every local variable, secrets too.
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )


def _journal_lines(_: WrappedLogger, __: str, event: EventDict) -> str:
    """Return `EVENT key=value ...`, with its priority in front (sd-daemon(3)).

    Further lines, such as those of a traceback, are indented: no text begins an event of its own.
    """
    priority = f"<{_PRIORITIES.get(event.pop('level', 'info'), 6)}>"
    name, trace = str(event.pop("event", "")), str(event.pop("exception", ""))
    lines = [*told(name, event).splitlines(), *trace.splitlines()]
    return f"\n{priority}  ".join([priority + (lines[0] if lines else ""), *lines[1:]])
