"""The log of a job: the lines that the process logs while the job runs, within bounds.

A handler of the standard library's logging keeps each line that carries a job's id, as the journal
gets it, until the job has ended and the ledger takes the lines.  The newest lines stay where there
are too many: how a job ended matters more than how it began.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

LINES_MAX = 200
"""Lines of a job that are kept."""
LINE_MAX = 1000
"""Characters of a line."""

_JOBS_MAX = 2000  # whose lines are held before they end
_WORD = re.compile(r"[\w./:@+-]+")
_AROUND = ("event", "level", "timestamp", "exception", "exc_info", "job", "reference")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line: when, how grave (info, warning, error), and `EVENT key=value ...`."""

    at: datetime
    level: str
    text: str


class JobLogs(logging.Handler):
    """The lines of the jobs that run now.  Safe to use from several threads."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._held = threading.Lock()
        self._lines: OrderedDict[str, deque[LogLine]] = OrderedDict()

    @contextmanager
    def attached(self, name: str = "syncd") -> Iterator[None]:
        """Keep what the loggers below a name log, while the context lasts."""
        logger = logging.getLogger(name)
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line of structlog that names its job; pass over any other."""
        event = record.msg
        if not isinstance(event, Mapping) or not isinstance(job := event.get("job"), str):
            return
        at = datetime.fromtimestamp(record.created, UTC)
        values = {key: value for key, value in event.items() if key not in _AROUND}
        texts = [told(str(event.get("event", "")), values)]
        texts += str(event.get("exception") or "").splitlines()
        level = record.levelname.lower()
        with self._held:
            lines = self._lines.setdefault(job, deque(maxlen=LINES_MAX))
            lines.extend(LogLine(at, level, _plain(text)) for text in texts)
            while len(self._lines) > _JOBS_MAX:
                self._lines.popitem(last=False)

    def lines(self, job: str) -> list[LogLine]:
        """Return the lines of a job that were not dropped yet."""
        with self._held:
            return list(self._lines.get(job, ()))

    def drop(self, job: str) -> None:
        """Hold the lines of a job no more: they are kept elsewhere."""
        with self._held:
            self._lines.pop(job, None)

    def jobs(self) -> list[str]:
        """Return the ids of the jobs whose lines are held."""
        with self._held:
            return list(self._lines)


def log_of(job: str, held: JobLogs, kept: Callable[[str], Sequence[LogLine]]) -> list[LogLine]:
    """Return the whole log of a job: what `kept` has of it, and what is held beyond that.

    Lines are dropped once they are kept, so each is seen here, and once.
    """
    newer = held.lines(job)
    older = list(kept(job))
    return [*older, *(line for line in newer if line not in older)]


def told(event: str, values: Mapping[str, object]) -> str:
    """Return `EVENT key=value ...`: a value as it is if it is a word, else in quotes."""
    return event + "".join(f" {key}={_shown(value)}" for key, value in values.items())


def lines_text(lines: Iterable[LogLine]) -> str:
    """Return the newest lines, as many as are kept, as the ledger writes them."""
    kept = list(lines)[-LINES_MAX:]
    return json.dumps([[line.at.isoformat(), line.level, line.text] for line in kept])


def lines_of(text: str) -> list[LogLine]:
    """Return the lines that `lines_text` wrote; raise ValueError or TypeError for other text."""
    return [
        LogLine(datetime.fromisoformat(at), str(level), str(line))
        for at, level, line in json.loads(text)
    ]


def _plain(text: str) -> str:
    """Bound a line, and keep it harmless to a terminal, whatever names and messages it quotes."""
    shown = (
        character if character.isprintable() else repr(character)[1:-1]
        for character in text[:LINE_MAX]
    )
    return "".join(shown)[:LINE_MAX]


def _shown(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)
