"""Which findings of a scan keep an image from a push: `images/findings.py`."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from images import findings
from images.findings import Finding, FindingsError, critical, deadlines, judge

TODAY = date(2026, 12, 1)
OPENSSL = Finding("CVE-2026-1", "openssl", "3.5.1-1", ("3.5.1-2",))


def match(severity: str = "Critical", **artifact: str) -> dict[str, Any]:
    return {
        "vulnerability": {
            "id": "CVE-2026-1",
            "severity": severity,
            "fix": {"versions": ["3.5.1-2"], "state": "fixed"},
        },
        "artifact": {"name": "openssl", "version": "3.5.1-1", **artifact},
    }


def test_critical() -> None:
    """The critical matches of a report count, each once, and the ignored do not."""
    report = {"matches": [match(), match(), match("High")], "ignoredMatches": [match(name="x")]}
    assert critical(json.dumps(report)) == [OPENSSL]


@pytest.mark.parametrize("report", ["", "[]", "{}", '{"matches": [{}]}', '{"matches": 1}'])
def test_no_report(report: str) -> None:
    """What is no report is refused: an image whose scan nobody can read does not pass."""
    with pytest.raises(FindingsError, match="no report of Grype's"):
        critical(report)


@pytest.mark.parametrize(
    ("since", "said", "blocked"),
    [
        (None, "::warning::CVE-2026-1 in openssl 3.5.1-1, fixed in 3.5.1-2; to have it", False),
        (date(2026, 12, 2), "; blocks from 2026-12-02 on", False),
        (TODAY, "::error::CVE-2026-1 in openssl 3.5.1-1", True),
        (date(2026, 11, 1), "; blocks since 2026-11-01", True),
    ],
)
def test_judge(since: date | None, said: str, blocked: bool) -> None:
    """A finding warns until the date in the list, and for ever when it is not listed."""
    listed = {("CVE-2026-1", "openssl"): since} if since else {("CVE-2026-1", "other"): TODAY}
    lines, found = judge([OPENSSL], listed, TODAY)
    assert found == blocked
    assert said in lines[0]


def test_the_offered_entry_is_one() -> None:
    """The entry that a warning shows can be added to the list, with two weeks of notice."""
    strange = Finding("CVE-2026-2", '100% "odd" 🙂', "1")
    shown, _ = judge([OPENSSL, strange], {}, TODAY)
    entries = [as_shown(line).partition(".toml:\n")[2] for line in shown]
    text = "\n".join([findings.LIST.read_text(), *entries])
    since = date(2026, 12, 15)
    assert deadlines(text) == {
        ("CVE-2026-1", "openssl"): since,
        ("CVE-2026-2", '100% "odd" 🙂'): since,
    }


def as_shown(line: str) -> str:
    """Return an annotation as a runner shows it, which takes its escapes off."""
    return line.replace("%0A", "\n").replace("%25", "%")


def test_hostile_names() -> None:
    """What a package is called becomes no command to the runner."""
    (line,), _ = judge([Finding("CVE-1", "a\n::add-mask::b\r", "1")], {}, TODAY)
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "block = [{}]",
        "block = [1]",
        "block = 1",
        "block",
        '[[block]]\nvulnerability = "a"\npackage = "b"\nfrom = "2026"\n',
        '[[block]]\nvulnerability = "a"\npackage = "b"\nfrom = 2026-01-01\n' * 2,
    ],
)
def test_a_fault_in_the_list(text: str) -> None:
    """A fault in the list is told, and is not taken for an empty list."""
    with pytest.raises(FindingsError, match=r"^findings\.toml: "):
        deadlines(text)


@pytest.mark.parametrize(
    ("listed", "status"),
    [
        ("", 0),
        ('[[block]]\nvulnerability="CVE-2026-1"\npackage="openssl"\nfrom=2026-01-01', 1),
    ],
)
def test_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, status: int) -> None:
    """The exit status lets the image pass or blocks it; a report that is missing is neither."""
    monkeypatch.setattr(findings, "LIST", tmp_path / "findings.toml")
    findings.LIST.write_text(listed)
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"matches": [match()]}))
    assert findings.main([str(report)]) == status
    assert findings.main([str(tmp_path / "none")]) == 2


def test_the_list_here() -> None:
    """The repository's own list is well-formed, and so is its example."""
    text = findings.LIST.read_text()
    deadlines(text)
    example = "\n".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    assert deadlines(example[example.index("[[block]]") :])
