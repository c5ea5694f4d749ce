"""`syncd convert` of an OCI layout on disk: no daemon, no configuration, no registry."""

from __future__ import annotations

import filecmp
import re
from pathlib import Path

from tests.e2e.command import attempt, files_below, run
from tests.e2e.conftest import Image, Synced
from tests.e2e.daemon import SYNCD

MEMORY_MAX = 150 << 10
"""Kibibytes that a conversion may hold at its peak."""


def test_same_bytes(small: Image, tmp_path: Path) -> None:
    """An image gives the same bytes each time and from each kind of source, and no other file."""
    archive, output = tmp_path / "small.oci.tar", tmp_path / "out"
    small.layout.archive(archive)
    output.mkdir()
    for name, source in {
        "one.tar.zst": str(small.layout),
        "again.tar.zst": str(small.layout),
        "only-tag.tar.zst": f"oci:{small.layout.folder}",
        "archive.tar.zst": f"oci-archive:{archive}",
    }.items():
        run(SYNCD, "convert", source, output / name, cwd=tmp_path)
    assert len({file.read_bytes() for file in output.iterdir()}) == 1
    assert len(files_below(tmp_path)) == 5


def test_same_as_template(synced_base: Synced, tmp_path: Path) -> None:
    """What is converted from a layout is, byte for byte, the template of the same image."""
    output = tmp_path / "converted.tar.zst"
    run(SYNCD, "convert", str(synced_base.image.layout), output, cwd=tmp_path)
    assert filecmp.cmp(output, synced_base.template, shallow=False)


def test_memory(base: Image, tmp_path: Path) -> None:
    """A conversion stays below its bound of memory."""
    output = tmp_path / "out.tar.zst"
    done = attempt("/usr/bin/time", "--verbose", SYNCD, "convert", str(base.layout), output)
    assert done.returncode == 0, done.stderr
    peak = re.search(r"Maximum resident set size \(kbytes\): ([0-9]+)", done.stderr)
    assert peak
    assert int(peak[1]) < MEMORY_MAX
