"""Commands beside the installed service: root, a member of the group syncd, and a stranger type.

One machine is installed and booted for all of it, on the loopback of this one.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import checkout, machine
from tests.e2e.command import alone_with
from tests.e2e.conftest import Image
from tests.e2e.registry import Registry
from tests.e2e.test_service import DIRECTORY_TARGET, INSTALL, PACKAGES, PORT, Service, settings

Done = subprocess.CompletedProcess[str]


class Host(Service):
    """The installed service, and three people who type."""

    def type(self, user: str, *words: str) -> Done:
        """Type a command of syncd as a user who just logged in."""
        login = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
        return self.machine.run(*login, "/opt/syncd/bin/syncd", *words)


@pytest.fixture(scope="module")
def watched(registry: Registry, small: Image) -> Image:
    """Push the image that the service watches."""
    return small.push(f"{registry.address}/commands/image:latest")


@pytest.fixture(scope="module")
def fresh(scratch: Path, watched: Image) -> Iterator[Host]:
    """Install as an administrator does, with a member of the group and a stranger; boot that."""
    root = checkout.unpack(PACKAGES, scratch / "commands")
    checkout.run_inside(root, INSTALL, timeout=300)
    checkout.run_inside(root, "useradd -m -G syncd member && useradd -m stranger", timeout=60)
    (root / "etc/syncd/syncd.toml").write_text(settings(watched))
    with alone_with(f"port-{PORT}"), machine.boot(root, network=machine.OWN_NETWORK) as booted:
        booted.wait_for("multi-user.target")
        yield Host(booted, root)


@pytest.fixture(scope="module")
def host(fresh: Host) -> Host:
    """Start the service."""
    fresh.systemctl("enable", "--now", "syncd.socket", "syncd.service")
    return fresh


NAMED = """
[[registry]]
host = "registry.example"
username = "robot"
password_file = "/run/credentials/syncd.service/registry-password"
"""
CREDENTIAL = """\
[Service]
LoadCredential=registry-password:/etc/syncd/registry-password
"""


def test_check_before_the_first_start(fresh: Host, watched: Image) -> None:
    """Before the first start root's check sees what the service will see, not what root sees."""
    password = fresh.root / "etc/syncd/registry-password"
    password.write_text("a password\n")
    password.chmod(0o600)
    folder = fresh.root / "etc/systemd/system/syncd.service.d"
    folder.mkdir()
    (folder / "password.conf").write_text(CREDENTIAL)
    fresh.systemctl("daemon-reload")
    with fresh.configured(settings(watched) + NAMED):
        seen = fresh.type("root", "check")
        assert seen.returncode == 0, seen.stdout
        where, *lines = seen.stdout.splitlines()
        assert where == "ok   check: as syncd, in a unit like syncd.service, which does not run"
        assert "ok   API token: readable" in lines
        assert "ok   registry registry.example: readable" in lines
        assert f"ok   clock, by {watched.reference.split('/')[0]}: right within a minute" in lines
        # What root's own process sees is something else.
        alone = fresh.type("root", "check", "--here")
        assert alone.returncode == 1
        assert "FAIL registry registry.example: the secret file /run/credentials" in alone.stdout
    fresh.machine.run("mkdir", "-p", "/var/lib/vz/template/cache")
    with fresh.configured(settings(watched, "/var/lib/vz")):
        seen = fresh.type("root", "check")
        assert seen.returncode == 1
        assert "cannot be written: Read-only file system" in seen.stdout
        assert fresh.type("root", "check", "--here").returncode == 0
        member = fresh.type("member", "check")
        assert "as member, by this process: no daemon runs it, and you are not" in member.stdout
    password.unlink()
    seen = fresh.type("root", "check")
    assert (seen.returncode, seen.stdout) == (
        1,
        "FAIL service: systemd cannot start it (243): a credential cannot be read: is a file of "
        "LoadCredential= not there?\n",
    )
    (folder / "password.conf").unlink()
    folder.rmdir()
    fresh.systemctl("daemon-reload")
    assert fresh.shown("ActiveState") == "inactive"
    assert fresh.machine.run("ls", "/run/syncd").returncode != 0
    assert fresh.machine.failed_units() == []


def test_who_may_what(host: Host, watched: Image) -> None:
    """Root may everything, a member looks and syncs what is watched, a stranger gets no answer."""
    synced = host.type("root", "sync")
    assert synced.returncode == 0, synced.stderr
    assert watched.template_name in synced.stdout
    looked = {user: host.type(user, "status") for user in ("root", "member", "stranger")}
    assert looked["root"].stdout == looked["member"].stdout
    assert watched.reference in looked["member"].stdout
    assert (looked["stranger"].returncode, looked["stranger"].stdout) == (1, "")
    assert "members of the group syncd may look" in looked["stranger"].stderr
    for words in (("sync",), ("jobs",), ("resolve", watched.reference), ("verify",)):
        done = host.type("member", *words)
        assert done.returncode == 0, (words, done.stderr)
        assert host.type("stranger", *words).returncode == 1, words
    (volume,) = host.type("member", "resolve", watched.reference).stdout.split()
    for words in (("pin", volume), ("prune",), ("sync", "a.example/not/watched:latest")):
        refused = host.type("member", *words)
        assert refused.returncode == 1, words
        assert "root" in refused.stderr, words
    assert host.type("root", "pin", volume).returncode == 0
    (job,) = json.loads(host.type("member", "jobs", "--limit", "1", "--json").stdout)
    assert job["cause"] == "api"


def test_places(host: Host) -> None:
    """The socket is the service's, for its group; what the service keeps is for nobody else."""
    listed = host.machine.run("stat", "--format=%A %U:%G", "/run/syncd/syncd.sock").stdout
    assert listed == "srw-rw---- syncd:syncd\n"
    assert host.shown("User") == "" or host.shown("User") == "syncd"
    assert host.type("member", "--config", "/etc/syncd/syncd.toml", "status").returncode == 0
    assert host.machine.run(
        *("setpriv", "--reuid=member", "--regid=member", "--init-groups"),
        *("ls", "/var/lib/syncd/"),
    ).returncode


def test_root_beside_a_directory_target(host: Host) -> None:
    """With the drop-in for a directory target the service is root, and members still look."""
    host.machine.run("mkdir", "-p", "/var/lib/vz/template/cache")
    with host.drop_in(DIRECTORY_TARGET):
        assert host.shown("User") == "root"
        for user, code in (("root", 0), ("member", 0), ("stranger", 1)):
            done = host.type(user, "status")
            assert done.returncode == code, (user, done.stderr)


def test_without_a_daemon(host: Host, watched: Image) -> None:
    """While the service is stopped root's commands work by themselves, and start nothing."""
    asked = host.type("root", "status").stdout
    host.systemctl("stop", "syncd.service")
    try:
        assert host.type("root", "status").stdout == asked
        assert host.type("member", "status").returncode == 1
        assert host.shown("ActiveState") == "inactive"
    finally:
        host.systemctl("start", "syncd.service")
    assert host.type("member", "status").stdout == asked


def test_check(host: Host, watched: Image) -> None:
    """The running service is asked, by root and by a member, and says which file it looked at."""
    for user in ("root", "member"):
        seen = host.type(user, "check")
        assert seen.returncode == 0, seen.stdout
        where, *lines = seen.stdout.splitlines()
        assert where == (
            f"ok   check: as syncd, by the running service (process {host.shown('MainPID')})"
        )
        assert "ok   watched tags: 1 in order at the last look" in lines
        assert f"image {watched.reference}: sha256:" in seen.stdout
    with host.configured(settings(watched, "/var/lib/vz")):
        seen = host.type("member", "check")
        assert seen.returncode == 1
        assert "configuration: the file is not what runs now; systemctl reload" in seen.stdout
        assert "Read-only file system" in seen.stdout


def test_rotation(host: Host) -> None:
    """A changed secret counts after a restart; a reload fails and says so, and so does a check."""
    file = host.root / "etc/syncd/api-token"
    old, new = file.read_text().strip(), "the-new-token-of-the-api"
    assert host.machine.run("systemctl", "reload", "syncd.service").returncode == 0

    def answers(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return host.http.ask("GET", "/api/v1/jobs", headers=headers).status

    file.write_text(f"{new}\n")
    before = host.shown("MainPID")
    reloaded = host.machine.run("systemctl", "reload", "syncd.service")
    assert reloaded.returncode != 0
    told = "FAIL secret api-token: is another one on disk than the service has"
    assert host.says(told), host.log()
    assert (host.shown("ActiveState"), host.shown("MainPID")) == ("active", before)
    assert (answers(old), answers(new)) == (200, 401)
    seen = host.type("root", "check")
    assert (seen.returncode, told in seen.stdout) == (1, True)
    host.systemctl("restart", "syncd.service")
    assert (answers(old), answers(new)) == (401, 200)
    assert host.type("root", "check").returncode == 0
    assert host.machine.run("systemctl", "reload", "syncd.service").returncode == 0
