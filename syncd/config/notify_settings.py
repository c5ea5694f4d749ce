"""Who is told of what: the table `[notify]`.

The URLs of those who are told carry passwords, so they stand in files of their own, are read when
they are needed, and are part of no value and of no error.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from syncd.config import secret
from syncd.config.fields import SpanOrOff
from syncd.config.section import Section
from syncd.errors import ConfigError

_HTTP_URL = re.compile(r"https?://[^\s/?#]+[^\s]*", re.IGNORECASE)

Event = Literal["new", "updated", "failing", "recovered"]
"""What happens to a watched tag, and people may be told of."""

_REMIND_LEAST = timedelta(minutes=1)


def _not_too_often(span: timedelta | None) -> timedelta | None:
    if span is not None and span < _REMIND_LEAST:
        raise ValueError("write a span of at least 1m, or off")
    return span


class NotifySettings(Section):
    """Whom to tell of what; the file holds one Apprise URL a line (https://appriseit.com)."""

    urls_file: Path | None = None
    on: frozenset[Literal[Event, "weekly"]] = frozenset(get_args(Event))
    remind: Annotated[SpanOrOff, AfterValidator(_not_too_often)] = timedelta(hours=24)
    ping_url_file: Path | None = None

    def urls(self) -> list[str]:
        """Return the Apprise URLs, read from their file now: they carry passwords."""
        lines = map(str.strip, (secret.read(self.urls_file, "notify-urls") or "").splitlines())
        return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))

    def ping_url(self) -> str | None:
        """Return the URL of the dead man's switch, read from its file now, or None.

        Raise ConfigError when it is none of HTTP: it is a secret, and so is not shown.
        """
        url = secret.read(self.ping_url_file, "ping-url")
        if url is not None and not _HTTP_URL.fullmatch(url):
            raise ConfigError(
                "the URL of the dead man's switch is none of HTTP",
                hint="write one line like https://hc-ping.com/UUID into notify.ping_url_file",
            )
        return url
