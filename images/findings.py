"""Judge a scan's report: which critical findings are told, and which keep an image from a push.

A finding warns first: the weekly build brings Debian's fixes, and one finding without a fix must
not hold them up.  `findings.toml` lists those that block, each from a date on, so that somebody
decides and has until then.  On a runner, or by hand with what `grype -o json` wrote:

    python3 -m images.findings report.json

Exit status 0 lets the image pass, 1 blocks it, 2 means that report or list cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

NOTICE = timedelta(days=14)
"""How far ahead the date lies in the entry that a warning offers."""

LIST = Path(__file__).with_name("findings.toml")
REPORT_MAX = 256 << 20
"""Bytes of a report that are read; one of a Debian system with npm has some 10 MB."""


class FindingsError(Exception):
    """The report or the list cannot be read; the message says what is wrong where."""


@dataclass(frozen=True, order=True)
class Finding:
    """A vulnerability of a package, and the versions that have a fix."""

    vulnerability: str
    package: str
    version: str
    fixed: tuple[str, ...] = ()


def critical(report: str) -> list[Finding]:
    """Return the critical findings of a report of Grype, sorted, each once.

    Raise FindingsError when it is none.  The format: https://github.com/anchore/grype, `-o json`.
    """
    try:
        found = {
            Finding(
                vulnerability=str(match["vulnerability"]["id"]),
                package=str(match["artifact"]["name"]),
                version=str(match["artifact"]["version"]),
                fixed=tuple(map(str, match["vulnerability"].get("fix", {}).get("versions") or ())),
            )
            for match in json.loads(report)["matches"]
            if match["vulnerability"]["severity"] == "Critical"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FindingsError(f"this is no report of Grype's: {error!r}") from error
    return sorted(found)


def deadlines(text: str) -> dict[tuple[str, str], date]:
    """Return the list's dates by vulnerability and package; raise FindingsError for a fault."""
    wanted = {"vulnerability": str, "package": str, "from": date}
    try:
        entries = list(tomllib.loads(text).get("block", []))
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise FindingsError(f"{LIST.name}: {error}; see its first lines") from error
    found: dict[tuple[str, str], date] = {}
    for entry in entries:
        if (
            not isinstance(entry, dict)
            or {key: type(value) for key, value in entry.items()} != wanted
        ):
            raise FindingsError(
                f"{LIST.name}: {entry}: write vulnerability and package in quotes, and from as "
                f"2026-12-24"
            )
        key = entry["vulnerability"], entry["package"]
        if key in found:
            raise FindingsError(f"{LIST.name}: {' in '.join(key)} is there twice: remove one")
        found[key] = entry["from"]
    return found


def entry_for(one: Finding, since: date) -> str:
    """Return the entry of the list that has a finding block from a date on."""
    return (
        f"[[block]]\nvulnerability = {_quoted(one.vulnerability)}\n"
        f"package = {_quoted(one.package)}\nfrom = {since}\n"
    )


def _quoted(text: str) -> str:
    """Return text as TOML has it in quotes, whose escapes are JSON's but for those in pairs."""
    return json.dumps(text, ensure_ascii=False)


def judge(
    findings: Collection[Finding], blocking: Mapping[tuple[str, str], date], today: date
) -> tuple[list[str], bool]:
    """Return a line for each finding, as a runner shows annotations, and whether one blocks."""
    lines: list[str] = []
    blocked = False
    for one in findings:
        fix = f"fixed in {', '.join(one.fixed)}" if one.fixed else "no fix yet"
        what = f"{one.vulnerability} in {one.package} {one.version}, {fix}"
        since = blocking.get((one.vulnerability, one.package))
        if since is None:
            entry = "%0A".join(map(_plain, entry_for(one, today + NOTICE).splitlines()))
            lines.append(
                f"::warning::{_plain(what)}; to have it block, add to {LIST.name}:%0A{entry}"
            )
        elif today < since:
            lines.append(f"::warning::{_plain(what)}; blocks from {since} on")
        else:
            lines.append(f"::error::{_plain(what)}; blocks since {since}")
            blocked = True
    return lines, blocked


def _plain(text: str) -> str:
    """Return text of a report as a runner shows it: no other command, and `%` as it says it.

    Source: https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
    """
    shown = "".join(character if character.isprintable() else "?" for character in text)[:500]
    return shown.replace("%", "%25")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings of a report; return 1 when one of them blocks."""
    parser = argparse.ArgumentParser(description="Judge a report of Grype's by findings.toml.")
    parser.add_argument("report", type=Path, help="what grype -o json wrote")
    given = parser.parse_args(arguments)
    try:
        with given.report.open(encoding="utf-8") as file:
            report = file.read(REPORT_MAX + 1)
        if len(report) > REPORT_MAX:
            raise FindingsError(f"{given.report} has more than {REPORT_MAX >> 20} MiB")
        today = datetime.now(UTC).date()
        lines, blocked = judge(critical(report), deadlines(LIST.read_text(encoding="utf-8")), today)
    except (OSError, UnicodeDecodeError, FindingsError) as error:
        sys.stderr.write(f"findings: {error}\n")
        return 2
    sys.stdout.write("".join(f"{line}\n" for line in lines or ["No critical findings."]))
    return int(blocked)


if __name__ == "__main__":
    sys.exit(main())
