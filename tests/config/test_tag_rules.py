"""Tests for `syncd.config.tag_rules`."""

from __future__ import annotations

import pytest

from syncd.config.tag_rules import Newest, TagRules, check_tag, newest_versions

TAGS = ["latest", "main", "v1", "v1.2.3", "v1.2.4-rc.1", "1.10.0", "1.9.0-alpine"]
TAGS += [f"sha256-{'0' * 64}"]


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        (["latest"], []),
        (["re:^v[0-9]"], ["v1", "v1.2.3", "v1.2.4-rc.1"]),
        (["re:V1"], []),
        (["re:^v[0-9]+$", "re:^m"], ["main", "v1"]),
        (["re:.", "not:^v", "not:-alpine$"], ["latest", "main", "1.10.0"]),
        (["semver:>=1.2 <2"], ["v1.2.3", "1.10.0"]),
        (["semver:>=1.2", "re:^main$"], ["main", "v1.2.3", "1.10.0"]),
        (["newest:3"], ["v1.2.3", "1.10.0"]),
        (["newest:3", "not:^v"], ["1.10.0"]),
        (["newest:3", "re:^v"], ["v1.2.3", "v1.2.4-rc.1"]),
        (["newest:3 by version", "re:alpine"], ["1.9.0-alpine"]),
        (["newest:3 by creation"], TAGS[:-1]),
        (["newest:3 by creation", "re:^v1$"], ["v1"]),
    ],
)
def test_rules(rules: list[str], found: list[str]) -> None:
    """What a pattern takes and no `not:` leaves out is met; attachments never are."""
    assert [tag for tag in TAGS if TagRules.parse((*rules,)).meet(tag)] == found


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("re:(", r"not a regular expression of RE2: missing \)"),
        ("re:v(?!1)", "look-around.*not:PATTERN"),
        ("re:(a)\\1", "back-references"),
        ("not:[", "not a regular expression"),
        (f"re:{'a' * 1001}", "1000 characters"),
        ("re:" + "((a{99}){99}){99}", "not a regular expression"),
        ("semver:latest", "not a range"),
        ("newest:0", "newest:3"),
        ("newest:", "newest:3"),
        ("newest:3 by name", "by creation"),
        ("newest:12345", "newest:3"),
        ("other:1", "not a tag"),
        ("a b", "not a tag"),
    ],
)
def test_faulty_rules(rule: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A rule that is none is refused with what to write, and RE2 writes nothing by itself."""
    with pytest.raises(ValueError, match=said):
        check_tag(rule)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (["latest", "not:x"], "add one of these"),
        (["newest:3", "newest:4"], "twice"),
    ],
)
def test_rules_that_do_not_go_together(rules: list[str], said: str) -> None:
    """Rules that mean nothing beside the others are refused."""
    with pytest.raises(ValueError, match=said):
        TagRules.parse((*rules,))


@pytest.mark.parametrize("pattern", ["(a+)+$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(a|aa)+$", "(.*)*x"])
def test_no_pattern_backtracks(pattern: str) -> None:
    """Patterns that take Python's `re` longer than the world is old end at once."""
    rules = TagRules.parse((f"re:{pattern}",))
    assert not any(rules.meet("a" * 127 + "!") for _ in range(1000))


def test_newest() -> None:
    """Versions are compared as such, not as text, and what is none is not among them."""
    assert newest_versions(["v1.9.0", "latest", "1.10.0", "1.10.0-rc.1"], 2) == [
        "1.10.0-rc.1",
        "1.10.0",
    ]
    assert newest_versions(["latest"], 2) == []
    assert TagRules.parse(("newest:3",)).newest == Newest(3, by_creation=False)
    assert TagRules.parse(("newest:12 by creation",)).newest == Newest(12, by_creation=True)
