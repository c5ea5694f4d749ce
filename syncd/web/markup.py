"""HTML from values: every text is escaped here, and nowhere else becomes markup.

Names come from images, registries and callers, so they are bounded, and may break where a reader
would break them: behind `/`, `:`, `@`, `.`, `-` and `_`.
"""

from __future__ import annotations

import hashlib
import html
import re
from datetime import datetime, timedelta

REASON_MAX = 600
"""Characters of a reason or a message."""

_NAME_MAX = 600
_BREAKS = re.compile(r"([/:@._-]+)(?=[^/:@._-])")
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_SPANS = (("d", 86400), ("h", 3600), ("min", 60))


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object, most: int = 2000) -> Markup:
    """Return a value as text, with its end left out where it is long."""
    plain = str(value)
    return Markup(html.escape(plain if len(plain) <= most else f"{plain[: most - 1]}…"))


def name(value: object) -> Markup:
    """Return a name, such as a reference or a volume id, that may break between its parts."""
    plain = str(value)[:_NAME_MAX]
    parts = _BREAKS.split(plain)
    pieces = [html.escape(part) for part in parts]
    return Markup(f"<code>{''.join(f'{a}{b}<wbr>' for a, b in _pairs(pieces))}{pieces[-1]}</code>")


def moment(at: datetime, kind: str = "") -> Markup:
    """Return a moment: in UTC here; the page's script shows it in the reader's zone.

    With `kind`, such as `age`, the script shows how long ago it was.
    """
    shown = f"{at:%Y-%m-%d %H:%M} UTC"
    mark = f' data-kind="{kind}"' if kind else ""
    return Markup(f'<time datetime="{at:%Y-%m-%dT%H:%M:%SZ}"{mark}>{shown}</time>')


def span(length: timedelta) -> str:
    """Return a span of time: seconds below a minute, else its two largest units."""
    seconds = max(0.0, length.total_seconds())
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    shown: list[str] = []
    for unit, size in _SPANS:
        if seconds >= size and len(shown) < 2:
            shown.append(f"{seconds // size:.0f} {unit}")
            seconds %= size
        elif shown:
            break
    return " ".join(shown)


def size(number: float) -> str:
    """Return bytes in the decimal units that disks and networks are sold by."""
    for unit in _UNITS:
        if number < 1000 or unit == _UNITS[-1]:
            break
        number /= 1000
    return f"{number:.0f} {unit}" if number >= 100 or unit == "B" else f"{number:.1f} {unit}"


def pill(word: str) -> Markup:
    """Return a word such as a condition or a result, which the style colours."""
    return Markup(f'<span class="pill {word}">{word}</span>')


def button(act: str, label: str, meaning: str, **data: str) -> Markup:
    """Return a button for the script: what it does, its label, its meaning, and with what."""
    given = "".join(f' data-{key}="{text(value, 400_000)}"' for key, value in data.items())
    return Markup(
        f'<button type="button" data-act="{act}"{given} aria-label="{text(meaning, 600)}">'
        f"{label}</button>"
    )


def id_of(kind: str, what: str) -> str:
    """Return an id by which the script finds what a reader has opened."""
    digest = hashlib.sha256(what.encode("utf-8", "surrogateescape"))
    return f"{kind}-{digest.hexdigest()[:12]}"


def _pairs(pieces: list[str]) -> list[tuple[str, str]]:
    return list(zip(pieces[::2], pieces[1::2], strict=False))
