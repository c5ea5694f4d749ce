"""The images of `images/`: built from their own Dockerfiles, made templates, booted, logged in to.

A minimal Debian 13 that mmdebstrap makes stands for Proxmox VE's template: served over HTTP on
loopback and checked by its SHA-512, it takes the same way into the image.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

import pytest

from images.dockerfile import references as references_of
from tests.e2e import image, machine, tree
from tests.e2e.command import CHECKOUT, CommandError, run
from tests.e2e.conftest import BASE_PACKAGES
from tests.e2e.daemon import Syncd
from tests.e2e.debian import debian_root
from tests.e2e.image import Layout
from tests.e2e.ldap import BASE, PASSWORDS, READER_SECRET, Directory
from tests.e2e.machine import Machine
from tests.e2e.registry import Registry

IMAGES = CHECKOUT / "images"
HOST_KEYS = ("ssh_host_ecdsa_key", "ssh_host_ed25519_key", "ssh_host_rsa_key")
# sshd makes an address from which logins failed wait (PerSourcePenalties, sshd_config(5)): each
# login comes from another one.
SOURCES = (f"127.0.1.{number}" for number in itertools.count(1))
EVERY_VARIABLE = ("LDAP_URI", "LDAP_BASE", "LDAP_BIND_DN", "LDAP_BIND_SECRET")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files of a folder over HTTP on loopback; yield the URL."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class BaseBuild(NamedTuple):
    """What a build of base is told: buildah's option, and the build arguments."""

    option: str
    arguments: dict[str, str]

    def run(self, reference: str, *options: str, **arguments: str) -> None:
        """Build base and push it; `arguments` go before those that are told."""
        image.build(IMAGES / "base", reference, self.option, *options, **self.arguments | arguments)


@pytest.fixture(scope="module")
def debian(scratch: Path, registry: Registry) -> Iterator[BaseBuild]:
    """Return how base is built on a Debian that is made here, which unpacks itself."""
    folder = scratch / "debian"
    folder.mkdir()
    root = debian_root(BASE_PACKAGES)
    (folder / "root.tar").hardlink_to(root)
    (folder / "Containerfile").write_text("FROM scratch\nADD root.tar /\n")
    unpacker = f"{registry.address}/acme/debian:13"
    image.build(folder, unpacker)
    template = folder / "debian-13.tar.zst"
    run("zstd", "-q", "-1", root, "-o", template)
    with template.open("rb") as file:
        sha512 = hashlib.file_digest(file, "sha512").hexdigest()
    with served(folder) as url:
        (unpacks,) = references_of((IMAGES / "base" / "Dockerfile").read_text())
        yield BaseBuild(
            f"--build-context={unpacks.text}=docker-image://{unpacker}",
            {"TEMPLATE_URL": f"{url}/{template.name}", "TEMPLATE_SHA512": sha512},
        )


@pytest.fixture(scope="module")
def references(registry: Registry, debian: BaseBuild) -> dict[str, str]:
    """Build and push base, and nodejs on it."""
    base, nodejs = (f"{registry.address}/acme/server/{name}:main" for name in ("base", "nodejs"))
    debian.run(base)
    image.build(IMAGES / "nodejs", nodejs, BASE_IMAGE=base)
    return {"base": base, "nodejs": nodejs}


@pytest.fixture(scope="module")
def templates(scratch: Path, references: dict[str, str]) -> dict[str, Path]:
    """Have syncd make a template of each image."""
    found: dict[str, Path] = {}
    with Syncd(scratch / "images", list(references.values())) as daemon:
        for name, reference in references.items():
            # The daemon looks at what is new when it starts, so the job may find it published.
            assert daemon.sync(reference)["outcome"] in ("published", "unchanged")
            (found[name],) = [file for file in daemon.templates if f"_{name}_" in file.name]
    return found


@pytest.fixture(scope="module")
def directory(scratch: Path) -> Iterator[Directory]:
    """Run a directory for the module's containers."""
    with Directory(scratch / "ldap") as running:
        yield running


@pytest.fixture(scope="module")
def container(scratch: Path, templates: dict[str, Path], directory: Directory) -> Iterator[Machine]:
    """Boot a container of base that was told of the directory."""
    root = machine.unpack(templates["base"], scratch / "container")
    with machine.boot(root, directory.env, directory.network) as booted:
        booted.wait_for("multi-user.target")
        yield booted


@pytest.fixture(scope="module")
def lonely(scratch: Path, templates: dict[str, Path]) -> Iterator[Machine]:
    """Boot a container of base that was told where a directory is, and no more."""
    root = machine.unpack(templates["base"], scratch / "lonely")
    with machine.boot(root, {"LDAP_URI": "ldaps://ldap.example.org"}) as booted:
        booted.wait_for("multi-user.target")
        yield booted


def log_in(container: Machine, name: str, password: str, command: str) -> CompletedProcess[str]:
    """Run a command by SSH, logged in with a password."""
    ask = "/run/ask-password"
    container.run("sh", "-c", f"printf '#!/bin/sh\\necho \"$PASSWORD\"\\n' >{ask}; chmod 755 {ask}")
    said = [f"SSH_ASKPASS={ask}", "SSH_ASKPASS_REQUIRE=force", f"PASSWORD={password}"]
    options = ["StrictHostKeyChecking=no", "NumberOfPasswordPrompts=1"]
    options.append(f"BindAddress={next(SOURCES)}")
    flags = [word for option in options for word in ("-o", option)]
    return container.run("env", *said, "ssh", *flags, f"{name}@127.0.0.1", command)


class TestLogin:
    """A container of base whose environment names a directory."""

    def test_names(self, container: Machine) -> None:
        """The directory's people and groups are the container's."""
        found = container.run("getent", "passwd", "alice", "bob").stdout.splitlines()
        assert found == [
            "alice:*:10001:10001:alice:/home/alice:/bin/bash",
            "bob:*:10002:10002:bob:/home/bob:/bin/bash",
        ]
        assert "10000(ldapusers)" in container.run("id", "alice").stdout
        assert "ldapusers" not in container.run("id", "bob").stdout

    @pytest.mark.parametrize("name", PASSWORDS)
    def test_right_password(self, container: Machine, name: str) -> None:
        """The right password lets a person in, to a home of their own that is made now."""
        assert container.run("test", "-e", f"/home/{name}").returncode == 1
        done = log_in(container, name, PASSWORDS[name], "id -un; pwd; stat -c %U . .bashrc")
        assert done.stdout.split() == [name, f"/home/{name}", name, name], done.stderr

    @pytest.mark.parametrize(
        ("name", "password"),
        [("alice", "wrong"), ("alice", PASSWORDS["bob"]), ("alice", ""), ("nobody-known", "x")],
    )
    def test_wrong_password(self, container: Machine, name: str, password: str) -> None:
        """A wrong password, or none, lets nobody in."""
        done = log_in(container, name, password, "true")
        assert (done.returncode, done.stdout) == (255, "")
        assert "Permission denied" in done.stderr

    @pytest.mark.parametrize(("name", "found"), [("alice", (0, "root\n")), ("bob", (1, ""))])
    def test_sudo(self, container: Machine, name: str, found: tuple[int, str]) -> None:
        """Members of ldapusers are administrators without a password, others are not."""
        done = log_in(container, name, PASSWORDS[name], "sudo -n id -un")
        assert (done.returncode, done.stdout) == found, done.stderr

    def test_configuration(self, container: Machine) -> None:
        """The secret is in sssd.conf as it was given, for root alone, and in no log."""
        stated = container.run("stat", "-c", "%a %U %G", "/etc/sssd/sssd.conf").stdout
        assert stated == "600 root root\n"
        lines = container.run("cat", "/etc/sssd/sssd.conf").stdout.splitlines()
        assert f"ldap_default_authtok = {READER_SECRET}" in lines
        assert f"ldap_search_base = {BASE}" in lines
        assert READER_SECRET not in container.run("journalctl", "--boot").stdout

    def test_healthy(self, container: Machine) -> None:
        """No unit of the container failed."""
        assert container.failed_units() == []


class TestIdentity:
    """What a container must not share with another from the same template."""

    def test_template_has_none(self, templates: dict[str, Path], tmp_path: Path) -> None:
        """Templates hold no identity, no log, no package list, and nothing in /dev."""
        for name, template in templates.items():
            root = machine.unpack(template, tmp_path / name)
            assert (root / "etc/machine-id").read_text() == "uninitialized\n"
            for pattern in (
                "etc/ssh/ssh_host_*",
                "etc/sssd/sssd.conf",
                "var/lib/dbus/machine-id",
                "var/lib/apt/lists/*",
                "var/cache/apt/*",
                "dev/*",
                "tmp/*",
            ):
                assert list(root.glob(pattern)) == [], pattern
            logs = [path for path in (root / "var/log").rglob("*") if path.is_file()]
            assert [path for path in logs if not path.is_symlink()] == []

    def test_two_containers(
        self, container: Machine, templates: dict[str, Path], directory: Directory, tmp_path: Path
    ) -> None:
        """Two containers of one template differ in machine id and in each SSH host key."""
        root = machine.unpack(templates["base"], tmp_path / "root")
        with machine.boot(root, directory.env) as other:
            other.wait_for("multi-user.target")
            assert other.failed_units() == []
            for file in ("/etc/machine-id", *(f"/etc/ssh/{key}.pub" for key in HOST_KEYS)):
                ours, theirs = container.run("cat", file), other.run("cat", file)
                assert ours.returncode == theirs.returncode == 0
                assert len(ours.stdout) >= 33
                assert ours.stdout != theirs.stdout


class TestUnconfigured:
    """A container of base whose environment says too little, or nonsense."""

    def test_says_what_is_missing(self, lonely: Machine) -> None:
        """The one unit that failed says which variables are missing; the rest runs."""
        assert lonely.failed_units() == ["sssd-configure.service"]
        log = lonely.run("journalctl", "--boot", "--unit=sssd-configure", "--output=cat").stdout
        for name in EVERY_VARIABLE:
            said = f"{name} is not set in the container's environment" in log
            assert said == (name != "LDAP_URI")
        assert lonely.run("systemctl", "is-active", "ssh.service").stdout == "active\n"

    @pytest.mark.parametrize(
        ("variable", "value", "said"),
        [
            ("LDAP_URI", "ldap.example.org", "LDAP_URI must begin with ldap:// or ldaps://"),
            ("LDAP_BASE", "", "LDAP_BASE is not set"),
            ("LDAP_BIND_DN", "cn=x\n[sssd]", "LDAP_BIND_DN contains a line break"),
            ("LDAP_BIND_SECRET", " secret", "LDAP_BIND_SECRET begins or ends with a space"),
            ("LDAP_CA_CERT", "bm9uc2Vuc2U=", "LDAP_CA_CERT is not a PEM certificate in base64"),
            ("LDAP_CA_CERT", "%", "LDAP_CA_CERT is not a PEM certificate in base64"),
        ],
    )
    def test_faults(
        self, lonely: Machine, directory: Directory, variable: str, value: str, said: str
    ) -> None:
        """A value that sssd.conf could not hold is refused by name, and never shown."""
        env = [f"{name}={each}" for name, each in {**directory.env, variable: value}.items()]
        done = lonely.run("env", *env, "/usr/local/sbin/sssd-configure")
        assert done.returncode == 1
        assert said in done.stderr
        assert READER_SECRET not in done.stderr
        assert lonely.run("ls", "-A", "/etc/sssd").stdout.split() == ["conf.d"]


def test_nodejs(templates: dict[str, Path], tmp_path: Path) -> None:
    """An image on base is base and more: Node.js runs, people are known, nothing failed."""
    root = machine.unpack(templates["nodejs"], tmp_path / "root")
    with (
        Directory(tmp_path / "ldap") as directory,
        machine.boot(root, directory.env, directory.network) as booted,
    ):
        booted.wait_for("multi-user.target")
        assert booted.run("node", "--version").stdout.startswith("v")
        assert booted.run("npm", "--version").returncode == 0
        assert booted.run("getent", "passwd", "alice").returncode == 0
        assert booted.failed_units() == []


@pytest.mark.parametrize(
    ("sha512", "said"),
    [("", "is empty: give the SHA-512 that goes with TEMPLATE_URL"), ("0" * 128, "FAILED")],
)
def test_unverified_template(registry: Registry, debian: BaseBuild, sha512: str, said: str) -> None:
    """A root file system without the right SHA-512 becomes no image."""
    reference = f"{registry.address}/acme/server/refused:main"
    with pytest.raises(CommandError, match=said):
        debian.run(reference, TEMPLATE_SHA512=sha512)


def test_reproducible(
    references: dict[str, str], debian: BaseBuild, registry: Registry, tmp_path: Path
) -> None:
    """Two builds from the same packages differ in times alone."""
    again = f"{registry.address}/acme/server/again:main"
    debian.run(again, "--no-cache")

    def scan(reference: str, name: str) -> dict[bytes, tree.Properties]:
        layout = Layout(tmp_path / name)
        image.fetch(reference, layout)
        return tree.scan(layout.unpack(tmp_path / f"{name}.unpacked"))

    lines = tree.differences(scan(again, "again"), scan(references["base"], "first"))
    assert [line for line in lines if ": mtime is " not in line] == []
