"""What the tests of the lab share: how many trials, at which instants, and what has to hold after.

`SYNCD_LAB` multiplies the number of trials (1 by default; 5 gives 200 kills and 150 cuts), and
`SYNCD_LAB_SEED` chooses the instants.  `-rP` shows how many trials the time sufficed for.
docs/reliability.md says what each fault has to leave.
"""

from __future__ import annotations

import io
import os
import random
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import zstandard

from tests import archives, images
from tests.e2e.command import files_below
from tests.e2e.daemon import Job, Syncd

TIMES = int(os.environ.get("SYNCD_LAB", "1"))
SEED = int(os.environ.get("SYNCD_LAB_SEED", "13"))
PATIENCE = 45.0 if TIMES == 1 else 120.0 * TIMES
"""Seconds after which no further trial of a test begins."""
FEWEST = 5  # trials without which a test has shown nothing
DONE = ("published", "unchanged")  # the look that a start begins with may have come first
PAYLOAD = "srv/payload"


def trials(what: str, number: int) -> Iterator[int]:
    """Yield the trials, as many as there is time for, and print how many were made; all held."""
    end, made = time.monotonic() + PATIENCE, 0
    for trial in range(number):
        if time.monotonic() > end and made >= FEWEST:
            break
        yield trial
        made += 1
    print(f"{what}: {made} of {number} planned were made, and all held")


def payload(name: str, size: int = 400_000) -> bytes:
    """Return bytes that no compression makes smaller, the same for the same name."""
    return random.Random(f"{SEED} {name}").randbytes(size)


def image_of(content: bytes) -> images.Content:
    """Return an image of two layers, of which the upper one holds `content` alone."""
    lower = images.layer(archives.directory("srv"), archives.file("srv/lower", b"lower\n" * 9000))
    return images.image(lower, images.layer(archives.file(PAYLOAD, content)))


def payload_of(template: bytes) -> bytes:
    """Return the file that `image_of` was given, from a template as it stands in a storage.

    Raise what zstd or tarfile raises when the template is not whole.
    """
    with zstandard.ZstdDecompressor().stream_reader(
        io.BytesIO(template), read_across_frames=True
    ) as plain:
        whole = plain.read()
    assert whole.endswith(archives.END)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        found = archive.extractfile(f"./{PAYLOAD}")
        assert found is not None
        return found.read()


def assert_sound(daemon: Syncd, *templates: str) -> None:
    """Fail unless the daemon is well, its ledger opens, and storage holds these templates alone."""
    assert daemon.ask("GET", "/healthz").status == 200
    assert daemon.run("status", "--json").returncode == 0
    assert files_below(daemon.storage) == {f"template/cache/{name}" for name in templates}
    assert files_below(daemon.spool) == set()


def assert_told(job: Job) -> None:
    """Fail unless a failed job says in one line what was at fault, and was foreseen."""
    message = job["message"]
    assert job["outcome"] == "failed", message
    assert "\n" not in message.strip()
    assert "Traceback" not in message
    assert "a fault in syncd" not in message, message


def peak_memory(pid: int) -> int:
    """Return the most bytes of memory that a process has held (proc(5), VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
