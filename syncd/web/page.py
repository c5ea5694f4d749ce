"""The status page: one HTML file with its style and its script, filled with what is true now.

Reading needs no script.  The script brings times into the reader's zone, filters while one types,
keeps the page fresh, and asks the API for what the buttons say.  Style and script are files beside
the HTML and become part of it, so that the page loads nothing and its policy names both by their
hashes: nothing else runs, whatever a name or a message holds.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files

from syncd import __version__
from syncd.web import page_jobs as jobs
from syncd.web import page_sections as sections
from syncd.web.browsers import page_policy
from syncd.web.markup import Markup, moment, text
from syncd.web.overview import Overview


def status_page(seen: Overview) -> str:
    """Return the page as HTML."""
    parts = {
        "version": text(__version__),
        "host": text(seen.host, 253),
        "now": moment(seen.now, "clock"),
        "filter": text(" ".join(seen.words), 200),
        "verdict": sections.verdict(seen),
        "due": sections.due(seen),
        "attention": sections.attention(seen),
        "running": jobs.running(seen),
        "room": sections.room(seen),
        "watched": sections.watched(seen),
        "history": jobs.history(seen),
    }
    return re.sub("{([a-z]+)}", lambda found: parts.get(found[1], Markup(found[0])), _blank())


@functools.cache
def status_policy() -> str:
    """Return the Content-Security-Policy of the page."""
    return page_policy(_blank())


@functools.cache
def _blank() -> str:
    """Return the page without what it tells."""
    page, style, script = (
        files("syncd.web").joinpath(f"status.{kind}").read_text("utf-8")
        for kind in ("html", "css", "js")
    )
    return page.replace("{style}", style).replace("{script}", script)
