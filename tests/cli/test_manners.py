"""What the command line promises whatever the command: options anywhere, a full device, endings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import sample
from tests.images import write_layout

CONFIG = '[state]\ndirectory = "{}"\n'


def syncd(
    *arguments: object, cwd: Path, stdout: int | None = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "syncd", *map(str, arguments)],
        cwd=cwd,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), **environment},
        check=False,
    )


@pytest.fixture
def layout(tmp_path: Path) -> str:
    """Write an image layout."""
    return f"oci:{write_layout(tmp_path / 'layout', {'latest': sample()})}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config", "a.toml", "status", "--json"),
        ("status", "--config", "a.toml", "--json"),
        ("status", "--json", "--config=a.toml"),
    ],
)
def test_config_anywhere(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """`--config FILE` counts before and behind the command."""
    (tmp_path / "a.toml").write_text(CONFIG.format(tmp_path / "mine"))
    done = syncd(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine").is_dir()


def test_config_without_file(tmp_path: Path) -> None:
    """`--config` as the last word is wrong usage."""
    done = syncd("status", "--config", cwd=tmp_path)
    assert done.returncode == 2
    assert b"--config" in done.stderr


@pytest.mark.parametrize("arguments", [("-h",), ("status", "-h")])
def test_short_help(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """`-h` is `--help`, of syncd and of each command."""
    done = syncd(*arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert b"Usage: " in done.stdout


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("check",)])
def test_full_device(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Standard output that takes no more is one sentence and 1, no traceback."""
    with Path("/dev/full").open("wb") as full:
        done = syncd(*arguments, cwd=tmp_path, stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr == b"syncd: standard output does not take more: No space left on device\n"


def test_full_device_for_a_template(layout: str, tmp_path: Path) -> None:
    """A template that standard output does not take is told so, too."""
    with Path("/dev/full").open("wb") as full:
        done = syncd("convert", layout, "-", cwd=tmp_path, stdout=full.fileno())
    assert done.returncode == 1
    assert b"standard output does not take more: No space left on device\n" in done.stderr


UNNAMED = """
import errno, os, sys
from syncd.cli import commands, entry
def fail(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
commands.app = fail
entry.main()
"""


def test_unnamed_file() -> None:
    """An error that names no file is told, and standard output is not blamed for it."""
    done = subprocess.run(
        [sys.executable, "-c", UNNAMED], cwd=Path.cwd(), capture_output=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == b"syncd: [Errno 28] No space left on device\n"


def test_standard_output(layout: str, tmp_path: Path) -> None:
    """`convert SOURCE -` writes the template to standard output, and every word elsewhere."""
    assert syncd("convert", layout, "a.tar.zst", cwd=tmp_path).returncode == 0
    (tmp_path / "tmp").mkdir()
    done = syncd("convert", layout, "-", cwd=tmp_path, TMPDIR=str(tmp_path / "tmp"))
    assert done.stdout == (tmp_path / "a.tar.zst").read_bytes()
    assert b"- 0.0 MB sha256:" in done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []
    mixed = syncd("convert", layout, "-", "--json", cwd=tmp_path)
    assert (mixed.returncode, mixed.stdout) == (2, b"")
    oci = syncd("convert", layout, "-", "--format", "oci", cwd=tmp_path)
    assert syncd("convert", layout, "b.tar", cwd=tmp_path).returncode == 0
    assert oci.stdout == (tmp_path / "b.tar").read_bytes()


@pytest.mark.parametrize(
    ("output", "options", "begins"),
    [
        ("a.tar.zst", (), b"\x28\xb5\x2f\xfd"),  # zstd (RFC 8878, 3.1.1)
        ("a.tar", (), b"oci-layout\0"),
        ("a", ("--format", "rootfs"), b"\x28\xb5\x2f\xfd"),
        ("a.oci", ("--format", "oci"), b"oci-layout\0"),
    ],
)
def test_format(
    output: str, options: tuple[str, ...], begins: bytes, layout: str, tmp_path: Path
) -> None:
    """The format is the one that the ending tells, or the one that is asked for."""
    done = syncd("convert", layout, output, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / output).read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("a.tar", ("--format", "rootfs"), b"end its name in .tar.zst"),
        ("a.tar.zst", ("--format", "oci"), b"end its name in .tar\n"),
        ("a.tgz", (), b"give --format"),
        ("a", (), b"give --format"),
    ],
)
def test_unreadable(
    output: str, options: tuple[str, ...], message: bytes, layout: str, tmp_path: Path
) -> None:
    """A name under which Proxmox VE could not read the file is refused, and nothing is written."""
    done = syncd("convert", layout, output, *options, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / output).exists()


@pytest.mark.parametrize(("value", "coloured"), [("", True), ("1", False)])
def test_no_color(value: str, coloured: bool, tmp_path: Path) -> None:
    """On a terminal `check` is coloured, unless NO_COLOR is set."""
    leader, follower = os.openpty()
    done = syncd("check", cwd=tmp_path, stdout=follower, NO_COLOR=value, TERM="xterm")
    os.close(follower)
    told = os.read(leader, 65536)
    os.close(leader)
    assert done.returncode == 0
    assert (b"\x1b[" in told) is coloured
    assert b"ok" in told


def test_a_file_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the system that names a file is told with the file, not of standard output."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import syncd.cli.app as app\n"
        "def locate(*_): raise FileNotFoundError(2, 'No such file or directory', '/proc/none')\n"
        "app.locate = locate\n"
    )
    done = syncd("status", cwd=tmp_path, PYTHONPATH=f"{site}:{Path.cwd()}")
    assert done.returncode == 1
    assert done.stderr == b"syncd: /proc/none: No such file or directory\n"
