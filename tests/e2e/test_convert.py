"""`syncd convert` of an OCI layout on disk: no daemon, no configuration, no registry."""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e.command import attempt, files_below, run
from tests.e2e.conftest import Image, Synced
from tests.e2e.daemon import SYNCD

MEMORY_MAX = 150 << 10
"""Kibibytes that a conversion may hold at its peak."""


def test_same_bytes(base: Image, tmp_path: Path) -> None:
    """Two conversions of one image give equal bytes, and nothing beside them."""
    one, two = tmp_path / "one.tar.zst", tmp_path / "two.tar.zst"
    for output in (one, two):
        run(SYNCD, "convert", str(base.layout), output, cwd=tmp_path)
    assert one.read_bytes() == two.read_bytes()
    assert files_below(tmp_path) == {one.name, two.name}


def test_same_as_template(synced_base: Synced, tmp_path: Path) -> None:
    """What is converted from a layout is, byte for byte, the template of the same image."""
    output = tmp_path / "converted.tar.zst"
    run(SYNCD, "convert", str(synced_base.image.layout), output, cwd=tmp_path)
    assert output.read_bytes() == synced_base.template.read_bytes()


def test_memory(base: Image, tmp_path: Path) -> None:
    """A conversion stays below its bound of memory."""
    output = tmp_path / "out.tar.zst"
    done = attempt("/usr/bin/time", "--verbose", SYNCD, "convert", str(base.layout), output)
    assert done.returncode == 0, done.stderr
    peak = re.search(r"Maximum resident set size \(kbytes\): ([0-9]+)", done.stderr)
    assert peak
    assert int(peak[1]) < MEMORY_MAX
