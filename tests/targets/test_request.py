"""What a request's reference may be: as its grammar says, so its JSON schema says."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncd.errors import InvalidReferenceError
from syncd.oci.reference import Reference
from syncd.targets.request import REFERENCE_SCHEMA

# In ECMA-262, whose patterns JSON Schema takes, `$` is the end; in Python a newline may follow.
PATTERN = re.compile(REFERENCE_SCHEMA["pattern"].removesuffix("$") + r"\Z")
PARTS = [
    "a", "b1", "A", "B.c", ".", "_", "__", "-", "--", "/", ":", "@", "[", "]", "localhost", "[::1]",
    "[ab]", "5000", "123456", "ghcr.io", "latest", "é", "\n", " ", "x" * 120, "x" * 128,
    "sha256:" + "0" * 64, "sha256:" + "0" * 63, "sha512:" + "1" * 128,
]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), max_size=10).map("".join))
@example("a" * 247)
@example("a" * 248)
@example("a.b/" + "a" * 255)
@example("a.b/" + "a" * 256)
@example("a/" + "a" * 253)
@example("a/" + "a" * 254)
@example("a.b:99999/c:" + "t" * 128)
@example("a.b/c:" + "t" * 129)
@example("a.b:100000/c")
@example("docker.io/" + "a" * 247)
@example("docker.io/" + "a" * 248)
@example("Index.Docker.io/" + "a" * 248)
@example("docker.io/" + "a" * 248 + "/b")
@example("docker.io/" + "a" * 248 + ":b")
@example("registry-1.docker.io/" + "a" * 248 + "\n")
@example("[::1]/a")
@example("[ab]/a")
@example("[ab]:1/a")
@example("a__b.c/d")
@example("localhost/" + "a" * 255)
@example("A/b")
@example("a\n")
@example("")
def test_pattern(text: str) -> None:
    """The pattern of the schema matches exactly the texts that are read as references."""
    try:
        Reference.parse(text)
    except InvalidReferenceError:
        assert not PATTERN.search(text)
    else:
        assert PATTERN.search(text)


@pytest.mark.parametrize("text", ["a" * 20000, "a-" * 9000, "a/" * 9000, "a.b/" + "a_" * 9000])
def test_pattern_is_fast(text: str) -> None:
    """A reader of the schema does not need longer than a moment to refuse a long text."""
    before = time.process_time()
    assert not PATTERN.search(text + "!")
    assert time.process_time() - before < 1
