"""What `service_unit` promises: whose configuration it is, and what the drop-in has."""

from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest

from syncd.cli.service_unit import ServiceUnit, drop_in_text
from syncd.config.load import DEFAULT_PATH
from syncd.errors import StorageError

SECRETS = [Path("/etc/syncd/webhook-secret"), Path("/etc/syncd/api-token")]


@pytest.fixture
def unit(tmp_path: Path) -> ServiceUnit:
    """Return the service of a host that has it installed as a package does."""
    folder = tmp_path / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    (folder / "syncd.service").touch()
    return ServiceUnit(tmp_path)


def test_reads(unit: ServiceUnit, tmp_path: Path) -> None:
    """The service reads the one configuration, where it is installed."""
    assert unit.reads(DEFAULT_PATH)
    assert not unit.reads(tmp_path / "syncd.toml")
    assert not ServiceUnit(tmp_path / "elsewhere").reads(DEFAULT_PATH)


@pytest.mark.parametrize("group", [["Group=syncd"], []])
def test_folder(
    group: list[str], unit: ServiceUnit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To publish into a folder, its owner runs the service, and the folder is there."""
    known = {"syncd": grp.getgrall()[0]} if group else {}
    monkeypatch.setattr(grp, "getgrnam", known.__getitem__)
    assert unit.complete(tmp_path / "vz", SECRETS) == [unit.drop_in]
    templates = tmp_path / "vz/template/cache"
    assert templates.is_dir()
    lines = unit.drop_in.read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "[Service]",
        "DynamicUser=no",
        f"User={templates.owner()}",
        *group,
        f"ReadWritePaths={templates}",
    ]
    assert unit.complete(None, SECRETS) == []
    assert not unit.drop_in.exists()


def test_secrets() -> None:
    """Secrets are handed over, but for those that the unit hands over itself."""
    text = drop_in_text(None, [*SECRETS, Path("/etc/syncd/pve-token")])
    assert text.splitlines()[-2:] == [
        "# Only root can read these files: systemd hands them over.",
        "LoadCredential=pve-token:/etc/syncd/pve-token",
    ]
    assert drop_in_text(None, SECRETS) == ""


def test_odd_folder(tmp_path: Path) -> None:
    """Blanks, quotes and percent signs of a folder mean themselves."""
    folder = tmp_path / '100% "mine"'
    folder.mkdir()
    (line,) = (line for line in drop_in_text(folder, ()).splitlines() if "Paths" in line)
    assert line == f'ReadWritePaths="{tmp_path}/100%% \\"mine\\""'


def test_refused(unit: ServiceUnit, tmp_path: Path) -> None:
    """What is in the way of a folder is told by its name."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file cannot be written"):
        unit.complete(tmp_path / "file/vz", SECRETS)


def test_start(unit: ServiceUnit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that does not start is an error with systemd's own words."""
    program = tmp_path / "systemctl"
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/log\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    unit.start()
    assert (tmp_path / "log").read_text().splitlines() == [
        "daemon-reload",
        "enable --quiet syncd.socket syncd.service",
        "restart syncd.service",
    ]
    program.write_text('#!/bin/sh\necho "Job failed." >&2; exit 1\n')
    with pytest.raises(StorageError, match="Job failed"):
        unit.start()
