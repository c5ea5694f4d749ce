"""`make deb` on Debian 12 and 13: installed, used, kept through upgrades, removed, purged.

A machine is booted for each release, and what a person types there is typed.  The package is
installed without the network; only the upgrade of the host itself needs its mirror.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import names_on, token_for
from tests.e2e import checkout, machine
from tests.e2e.command import free_port, run, wait_for
from tests.e2e.debian import debian_root, mirror
from tests.e2e.machine import Machine
from tests.fakes.pve import Pve
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, sample

PACKAGES = ("ca-certificates", "curl", "dbus", "python3", "systemd-sysv")
SECRETS = ("/etc/syncd/webhook-secret", "/etc/syncd/api-token")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package, as `make deb` does."""
    return checkout.package(tmp_path_factory.mktemp("package"))


class Host:
    """A booted Debian with the package at /root/syncd.deb; its file system is `root`."""

    def __init__(self, booted: Machine, root: Path, port: int) -> None:
        self.machine = booted
        self.root = root
        self._port = port

    def type(self, *words: str) -> str:
        """Run a program, which must succeed; return what it printed, errors too."""
        done = self.machine.run(*words)
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}\n{self.log()}"
        return done.stdout + done.stderr

    def log(self) -> str:
        """Return what the service logged."""
        return self.machine.run("journalctl", "--unit=syncd", "--output=cat").stdout

    def shell(self, script: str) -> str:
        """Run a shell script, which must succeed; return what it printed."""
        return self.type("/bin/sh", "-euc", f"export DEBIAN_FRONTEND=noninteractive; {script}")

    def install(self) -> None:
        """Install the package, or upgrade to it."""
        self.type("dpkg", "--install", "/root/syncd.deb")

    def pid(self) -> str:
        """Return the process of the running service."""
        return self.type("systemctl", "show", "--value", "--property=MainPID", "syncd").strip()

    def healthy(self) -> bool:
        """Tell whether the service answers."""
        script = f"curl --silent --fail --max-time 5 http://127.0.0.1:{self._port}/healthz"
        return self.machine.run("/bin/sh", "-c", script).returncode == 0

    def python(self) -> str:
        """Return which Python the service runs under."""
        return self.shell(f"readlink /proc/{self.pid()}/exe").strip()


@pytest.fixture(params=["trixie"])
def host(request: pytest.FixtureRequest, package: Path, tmp_path: Path) -> Iterator[Host]:
    """Boot a Debian of the release, on the network of this machine."""
    suite: str = request.param
    root = tmp_path / "root"
    root.mkdir()
    run("tar", "-C", root, "-xpf", debian_root(PACKAGES, suite))
    run("cp", package, root / "root/syncd.deb")
    port = free_port()  # the machine shares this one's loopback, where 8750 may be taken
    elsewhere = root / "etc/systemd/system/syncd.socket.d/port.conf"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n")
    with machine.boot(root, network=machine.OWN_NETWORK) as booted:
        booted.wait_for("multi-user.target")
        yield Host(booted, root, port)


def test_package(host: Host) -> None:
    """One `dpkg -i` gives a running, secured service; its files and its words are where they go."""
    host.install()
    wait_for("the service", host.healthy, timeout=30)
    assert host.shell("systemctl is-enabled syncd.socket syncd.service").split() == ["enabled"] * 2
    for secret in SECRETS:
        assert host.shell(f"stat -c '%a %U' {secret}; wc -c <{secret}").split() == [
            *("600", "root", "44")
        ]
    assert host.type("syncd", "--version").startswith("syncd ")
    assert "Usage: syncd" in host.type("syncd", "--help")
    for path in (
        "/usr/share/man/man1/syncd.1.gz",
        "/usr/share/bash-completion/completions/syncd",
        "/usr/share/doc/syncd/examples/syncd.toml",
        "/usr/share/doc/syncd/examples/alerts.yml",
        "/usr/share/doc/syncd/examples/grafana-dashboard.json",
    ):
        assert (host.root / path.lstrip("/")).stat().st_size > 100, path
    words = "_SYNCD_COMPLETE=complete_bash COMP_WORDS='syncd sta' COMP_CWORD=1 syncd"
    assert host.shell(words).strip() == "status"
    assert host.shell("find /usr/lib/syncd -name '*.pyc' | wc -l") > "100"

    edited = host.root / "etc/syncd/syncd.toml"
    edited.write_text(edited.read_text() + "\n[server]\nsettle = '3s'\n")
    kept = [(host.root / secret.lstrip("/")).read_text() for secret in SECRETS]
    ledger = host.root / "var/lib/private/syncd/ledger.sqlite"
    before, inode = host.pid(), ledger.stat().st_ino
    host.install()
    wait_for("the service after the upgrade", host.healthy, timeout=30)
    assert host.pid() not in ("0", before)
    assert ledger.stat().st_ino == inode
    assert "settle" in edited.read_text()
    assert kept == [(host.root / secret.lstrip("/")).read_text() for secret in SECRETS]

    host.shell("mkdir -p /var/lib/vz/template/cache && echo >/var/lib/vz/template/cache/kept.tar")
    host.type("apt-get", "remove", "--yes", "syncd")
    assert not host.healthy()
    assert (host.root / "etc/syncd/api-token").exists()
    assert host.shell("ls -A /usr/lib/syncd 2>/dev/null || true") == ""
    host.type("apt-get", "purge", "--yes", "syncd")
    for gone in ("etc/syncd", "var/lib/syncd", "var/lib/private/syncd"):
        assert not (host.root / gone).exists(), gone
    assert (host.root / "var/lib/vz/template/cache/kept.tar").exists()
    assert "syncd" not in host.shell("systemctl list-unit-files | grep syncd || true")


def test_first_template(host: Host, pve: Pve) -> None:
    """From the package to the first template by one command: into a folder, and into a cluster."""
    host.install()
    wait_for("the service", host.healthy, timeout=30)
    host.shell("mkdir -p /var/lib/vz")
    secret = host.root / "root/token"
    secret.write_text(token_for(pve).secret)
    ca = host.root / "root/ca.pem"
    ca.write_bytes(pve.certificate.file.read_bytes())
    ca.chmod(0o600)
    with Registry() as registry:
        registry.push(REPOSITORY, "latest", sample())
        words = ["syncd", "init", "--plain-http", registry.address, "--start"]
        words += ["--image", f"{registry.address}/{REPOSITORY}", "--public-name", "a.example.org"]
        printed = host.type(*words, "--directory", "/var/lib/vz")
        assert "FAIL" not in printed
        assert "https://a.example.org/webhooks/github" in printed
        assert (host.root / SECRETS[0].lstrip("/")).read_text().strip() in printed
        assert (host.root / SECRETS[1].lstrip("/")).read_text().strip() not in printed
        templates = host.root / "var/lib/vz/template/cache"
        (first,) = wait_for("the first template", lambda: [*templates.glob("*.zst")], timeout=30)
        assert (first.stat().st_uid, first.stat().st_mode & 0o777) == (0, 0o644)

        written = (host.root / "etc/syncd/syncd.toml").read_text()
        host.install()  # as an upgrade does, without a question about the configuration
        wait_for("the service after the upgrade", host.healthy, timeout=30)
        assert (host.root / "etc/syncd/syncd.toml").read_text() == written

        refused = host.machine.run(*words, "--directory", "/var/lib/vz")
        assert (refused.returncode, "--force replaces it" in refused.stderr) == (2, True)
        cluster = ["--endpoint", f"127.0.0.1:{pve.port}", "--ca-file", "/root/ca.pem"]
        cluster += ["--storage", "cephfs", "--token-secret-file", "/root/token"]
        printed = host.type(*words, *cluster, "--force")
        assert "FAIL" not in printed
        assert "pveum acl modify /storage/cephfs" in printed
        wait_for("it in the cluster", lambda: names_on(pve, "cephfs", "pve1"), timeout=30)
    assert host.type("systemctl", "show", "--value", "--property=DynamicUser", "syncd") == "yes\n"
    host.type("apt-get", "purge", "--yes", "syncd")
    for gone in ("etc/syncd", "etc/systemd/system/syncd.service.d"):
        assert not (host.root / gone).exists(), gone


@pytest.mark.parametrize("host", ["bookworm"], indirect=True)
def test_upgrade_of_the_host(host: Host) -> None:
    """From Debian 12 to 13 in place: the service goes on, with its state, under the new Python."""
    host.install()
    wait_for("the service", host.healthy, timeout=30)
    assert host.python().endswith("python3.11")
    ledger = host.root / "var/lib/private/syncd/ledger.sqlite"
    inode = ledger.stat().st_ino
    (host.root / "etc/apt/sources.list").write_text(f"deb {mirror()} trixie main\n")
    host.shell(
        "apt-get update -qq && apt-get --yes -qq -o Dpkg::Options::=--force-confold full-upgrade"
    )
    wait_for("the service under the new Python", host.healthy, timeout=30)
    assert host.python().endswith("python3.13")
    assert ledger.stat().st_ino == inode
    assert host.type("syncd", "--version").startswith("syncd ")


def test_lint(package: Path) -> None:
    """Debian's own checker finds no error and no warning."""
    assert run("lintian", "--allow-root", "--fail-on=error,warning", package) == ""
