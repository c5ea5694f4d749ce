"""What `unit` promises: a unit is read as systemd reads it, and written alike for a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.cli.unit import Unit, parse_unit

SHIPPED = Path(__file__).parents[2] / "systemd" / "syncd.service"
CONFIG = Path("/etc/syncd/syncd.toml")


def shown(drop_in: str = "") -> Unit:
    """Return the shipped unit with a drop-in, as `systemctl cat` shows them."""
    path = "/etc/systemd/system/syncd.service"
    return parse_unit(f"# {path}\n{SHIPPED.read_text()}\n# {path}.d/x.conf\n{drop_in}")


def test_shipped() -> None:
    """The shipped unit runs the configuration in /etc, and no other."""
    assert shown().runs(CONFIG)
    assert not shown().runs(Path("/etc/syncd/another.toml"))
    assert not shown().runs(None)


@pytest.mark.parametrize(
    ("drop_in", "runs"),
    [
        ("[Service]\nExecStart=\nExecStart=/opt/syncd/bin/syncd run", False),
        ("[Service]\nExecStart=\nExecStart=/x --config /etc/syncd/syncd.toml run --log json", True),
        ("[Service]\nExecStart=\nExecStart=-/x --config \\\n /etc/syncd/syncd.toml \\\n run", True),
        ('[Service]\nExecStart=\nExecStart="/x', False),
        ("[Unit]\nExecStart=/bin/false", True),
        ("[Service]\n; ExecStart=/bin/false\n# ExecStart=/bin/false", True),
    ],
)
def test_drop_ins(drop_in: str, runs: bool) -> None:
    """Drop-ins count, continued lines and comments as systemd has them."""
    assert shown(drop_in).runs(CONFIG) is runs


def test_alike() -> None:
    """A unit for a command has the service's settings in their order, and none of its running."""
    unit = shown("[Service]\nLoadCredential=\nLoadCredential=pw:/etc/syncd/pw\nNice=5\n")
    text = unit._alike("syncd-check-1.service", ["check", 'a "$b" %c'], Path("/run/x/output"))
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("LoadC")] == [
        "LoadCredential=pw:/etc/syncd/pw"
    ]
    assert [line for line in lines if line.startswith("Nice")] == ["Nice=10", "Nice=5"]
    assert "SystemCallFilter=~@privileged @resources" in lines
    assert "IPAddressDeny=multicast 169.254.169.254 fd00:ec2::254" in lines
    assert [line.partition("=")[2] for line in lines if line.startswith("Exec")] == [
        '"/opt/syncd/bin/syncd" "--config" "/etc/syncd/syncd.toml" "check" "a \\"$$b\\" %%c"'
    ]
    assert [line for line in lines if line.startswith(("Type", "Restart", "Watch", "Runtime"))] == [
        "Type=oneshot"
    ]
    assert "User=syncd" in lines
    assert (
        "BindReadOnlyPaths=/run/credentials/syncd-check-1.service:/run/credentials/syncd.service"
        in lines
    )


def test_user() -> None:
    """The user of the unit is taken where it has one, and none is made up without DynamicUser."""
    for drop_in, users in (
        ("[Service]\nDynamicUser=no\nUser=root\n", ["User=root"]),
        ("[Service]\nDynamicUser=no\n", []),
    ):
        lines = shown(drop_in)._alike("a.service", ["check"], Path("/o")).splitlines()
        assert [line for line in lines if line.startswith("User=")] == users
