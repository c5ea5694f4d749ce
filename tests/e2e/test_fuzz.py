"""The fuzz targets of `tests.fuzz`, run for a bounded time from the kept corpus."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.e2e.command import CHECKOUT, run

SECONDS = int(os.environ.get("SYNCD_FUZZ_SECONDS", "10"))
"""How long each target runs; raise it to search longer."""
CORPUS = CHECKOUT / "tests" / "fuzz" / "corpus"


@pytest.mark.parametrize("target", ["tar", "convert", "chunked"])
def test_fuzz(target: str, tmp_path: Path) -> None:
    """Whatever the bytes, syncd takes or refuses them, in bounded time and memory."""
    found = tmp_path / "found"
    found.mkdir()
    bounds = [f"-max_total_time={SECONDS}", "-timeout=10", "-rss_limit_mb=1024", "-max_len=16384"]
    run(
        *(sys.executable, "-m", "tests.fuzz", target, *bounds),
        f"-artifact_prefix={tmp_path}/",
        *(found, CORPUS / target),
        cwd=CHECKOUT,
        timeout=SECONDS + 60,
    )
    assert any(found.iterdir())
