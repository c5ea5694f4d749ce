"""The images of `images/`: two built by the workflow, all made templates, booted, logged in to.

A minimal Debian 13 that mmdebstrap makes stands for Debian's own minimal image.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import syncd
from syncd.targets.container import Startup
from tests.e2e import image, machine, node_archive, tree
from tests.e2e.adoption import adopted
from tests.e2e.command import CHECKOUT, CommandError, run, wait_for
from tests.e2e.daemon import SYNCD, Syncd
from tests.e2e.debian import debian_root
from tests.e2e.github import GitHub
from tests.e2e.image import Layout
from tests.e2e.ldap import BASE, PASSWORDS, READER_SECRET, TELEPHONE, Directory
from tests.e2e.machine import Machine
from tests.e2e.node_archive import NodeArchive
from tests.e2e.registry import Registry

IMAGES = CHECKOUT / "images"
HOST_KEYS = ("ssh_host_ecdsa_key", "ssh_host_ed25519_key", "ssh_host_rsa_key")
# sshd makes an address from which logins failed wait (PerSourcePenalties, sshd_config(5)): each
# login comes from another one.
SOURCES = (f"127.0.1.{number}" for number in itertools.count(1))
BY_WORKFLOW = ("base", "nodejs")
BY_HAND = ("docs", "docker", "python")
CONFIRMED_AFTER = 20
"""Seconds after which the telephone's owner confirms a login."""

COMMON = {
    "PLAIN": " two words ",
    "QUOTED": """it's "$HOME" `id` 100% so""",
    "ESCAPED": r"C:\new\table ${HOME} \\",
    "NOTHING": "",
}
"""Variables that pam_env and systemd read from one file."""

HASHED = {"HASHED": "colour #fff", "MIXED": """"it's" \\ #1"""}
"""Variables that pam_env cannot read, of one line."""

LINES = {"LINES_OF": "first\nINJECTED=yes\nPATH\n# last"}
"""A variable that pam_env would take for several."""


LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6 /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"

GET = """\
use Socket;
socket my $socket, PF_INET, SOCK_STREAM, 0 or die;
connect $socket, pack_sockaddr_in(80, inet_aton '127.0.0.1') or die;
syswrite $socket, "GET $ARGV[0] HTTP/1.0\\r\\n\\r\\n";
print while <$socket>;
"""
"""A client of HTTP in the Perl of a minimal Debian."""


@pytest.fixture(scope="module")
def minimal(scratch: Path, registry: Registry) -> str:
    """Push a Debian made here where Docker Hub's is looked for, and return its digest."""
    folder = scratch / "debian"
    folder.mkdir()
    (folder / "root.tar").hardlink_to(debian_root((), options=("--skip=output/dev",)))
    (folder / "Containerfile").write_text("FROM scratch\nADD root.tar /\n")
    reference = f"{registry.address}/docker.io/library/debian:trixie-slim"
    image.build(folder, reference)
    found = run("skopeo", "inspect", "--tls-verify=false", f"docker://{reference}")
    digest: str = json.loads(found)["Digest"]
    return digest


@pytest.fixture(scope="module")
def archive(scratch: Path) -> Iterator[NodeArchive]:
    """Serve an archive of Node.js."""
    with node_archive.served(scratch / "node") as served:
        yield served


@pytest.fixture(scope="module")
def repository(scratch: Path, registry: Registry, minimal: str, archive: NodeArchive) -> GitHub:
    """Make a repository with two of this one's images, as far as these machines reach.

    Debian has another digest, as after Dependabot, and Node.js another archive with another key.
    """
    github = adopted(scratch / "images.github", "Acme/Server", registry)
    for name in BY_WORKFLOW:
        shutil.copytree(IMAGES / name, github.work / "images" / name)
    replace(github.work / "images/base/Dockerfile", r"@sha256:[0-9a-f]{64}", f"@{minimal}")
    nodejs = github.work / "images/nodejs"
    replace(nodejs / "Dockerfile", r"(?<=NODE_REPOSITORY=)https\S+", archive.url)
    (nodejs / "nodesource.asc").write_text(archive.key)
    return github


def replace(file: Path, pattern: str, text: str) -> None:
    """Put `text` in the one place of a file that the pattern fits."""
    content, count = re.subn(pattern, text, file.read_text())
    assert count == 1
    file.write_text(content)


@pytest.fixture(scope="module")
def references(repository: GitHub, registry: Registry) -> dict[str, str]:
    """Have the workflow build and push its images; build and push the others on base by hand."""
    place = f"{registry.address}/acme/server"
    made = {name: f"{place}/{name}:main" for name in (*BY_WORKFLOW, *BY_HAND)}
    repository.commit()
    ran = repository.push("main")
    assert ran is not None
    assert ran.ok, ran.annotations("error")
    folders = {name: IMAGES / name for name in BY_HAND} | {"docs": CHECKOUT / "docs"}
    options = {"docs": ("--file", str(IMAGES / "docs" / "Dockerfile"))}

    def build(name: str) -> None:
        told = {"BASE_IMAGE": made["base"]}
        image.build(folders[name], made[name], *options.get(name, ()), **told)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(build, BY_HAND))
    return made


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
    """Run a directory that a reader has to log in to."""
    with Directory(scratch / "ldap") as running:
        yield running


@pytest.fixture(scope="module")
def container(scratch: Path, templates: dict[str, Path], directory: Directory) -> Iterator[Machine]:
    """Boot a container of base that was told who reads the directory."""
    root = machine.unpack(templates["base"], scratch / "container")
    with machine.boot(root, directory.env, directory.network) as booted:
        booted.wait_for("multi-user.target")
        yield booted


@pytest.fixture(scope="module")
def open_container(scratch: Path, templates: dict[str, Path]) -> Iterator[Machine]:
    """Boot a container of base as opensource-server's page would: the directory's address, no more.

    Anybody may read the directory; alice has her SSH key there, as has bob, whom the filter keeps
    out.  Beside that the container has an application's variables.
    """
    root = machine.unpack(templates["base"], scratch / "open")
    key = root / "root" / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    public = key.with_suffix(".pub").read_text().strip()
    keys = dict.fromkeys(("alice", "bob"), public)
    page = {
        "SSSD_LDAP_URI": "ldap://127.0.0.1",
        "SSSD_LDAP_TLS_REQCERT": "allow",
        "SSSD_LDAP_SCHEMA": "",
        "SSSD_LDAP_SEARCH_BASE": "",
        "SSSD_LDAP_DEFAULT_BIND_DN": "",
        "SSSD_DEFAULT_AUTHTOK": "",
        "SSSD_LDAP_ACCESS_FILTER": f"(|(uid=alice)(uid={TELEPHONE}))",
    }
    env = page | COMMON | HASHED | LINES
    with (
        Directory(
            scratch / "open.ldap", anonymous=True, keys=keys, confirmed_after=CONFIRMED_AFTER
        ) as running,
        machine.boot(root, env, running.network) as booted,
    ):
        booted.wait_for("multi-user.target")
        yield booted


@pytest.fixture(scope="module")
def lonely(scratch: Path, templates: dict[str, Path]) -> Iterator[Machine]:
    """Boot a container of base whose environment contradicts itself."""
    root = machine.unpack(templates["base"], scratch / "lonely")
    env = {"LDAP_URI": "ldaps://one", "SSSD_LDAP_URI": "ldaps://two", "LDAP_BIND_DN": "cn=reader"}
    with machine.boot(root, env) as booted:
        booted.wait_for("multi-user.target")
        yield booted


def units(root: Path) -> set[str]:
    """Return the links by which units are enabled, and aliases."""
    folder = root / "etc/systemd/system"
    return {str(link.relative_to(folder)) for link in folder.rglob("*") if link.is_symlink()}


def log_in(container: Machine, name: str, password: str, command: str) -> CompletedProcess[str]:
    """Run a command by SSH, logged in with a password."""
    ask = "/run/ask-password"
    container.run("sh", "-c", f"printf '#!/bin/sh\\necho \"$PASSWORD\"\\n' >{ask}; chmod 755 {ask}")
    said = [f"SSH_ASKPASS={ask}", "SSH_ASKPASS_REQUIRE=force", f"PASSWORD={password}"]
    options = ["StrictHostKeyChecking=no", "NumberOfPasswordPrompts=1"]
    options.append(f"BindAddress={next(SOURCES)}")
    flags = [word for option in options for word in ("-o", option)]
    return container.run("env", *said, "ssh", *flags, f"{name}@127.0.0.1", command)


def log_in_by_key(container: Machine, name: str, command: str) -> CompletedProcess[str]:
    """Run a command by SSH, logged in with the key that lies in the container."""
    options = ["StrictHostKeyChecking=no", "BatchMode=yes", f"BindAddress={next(SOURCES)}"]
    flags = [word for option in options for word in ("-o", option)]
    return container.run("ssh", *flags, "-i", "/root/key", f"{name}@127.0.0.1", command)


def variables(done: CompletedProcess[str]) -> dict[str, str]:
    """Return the environment that `env -0` printed."""
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


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

    @pytest.mark.parametrize("name", ["alice", "bob"])
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

    def test_units(
        self, templates: dict[str, Path], container: Machine, scratch: Path, tmp_path: Path
    ) -> None:
        """A first boot enables nothing more than the image, and a package's service is enabled."""
        root = machine.unpack(templates["base"], tmp_path / "root")
        assert container.run("test", "-s", "/etc/machine-id").returncode == 0
        as_built = units(root)
        assert units(scratch / "container") == as_built
        unit = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
        (root / "usr/lib/systemd/system/new.service").write_text(unit)
        installed = ("env", "DPKG_MAINTSCRIPT_PACKAGE=new", "deb-systemd-helper", "enable")
        run("chroot", root, *installed, "new.service")
        assert units(root) - as_built == {"multi-user.target.wants/new.service"}

    def test_two_containers(self, container: Machine, open_container: Machine) -> None:
        """Two containers of one template differ in machine id and in each SSH host key."""
        for file in ("/etc/machine-id", *(f"/etc/ssh/{key}.pub" for key in HOST_KEYS)):
            ours, theirs = container.run("cat", file), open_container.run("cat", file)
            assert ours.returncode == theirs.returncode == 0
            assert len(ours.stdout) >= 33
            assert ours.stdout != theirs.stdout


class TestOpenDirectory:
    """A container of base that was told an address, of a directory that anybody may read."""

    def test_names(self, open_container: Machine) -> None:
        """Neither reader nor search base is needed: the directory itself tells the base."""
        assert open_container.run("id", "-un", "alice").stdout == "alice\n"
        settings = open_container.run("cat", "/etc/sssd/sssd.conf").stdout
        assert "ldap_search_base" not in settings
        assert "ldap_default" not in settings

    def test_key(self, open_container: Machine) -> None:
        """The SSH key that the directory has of a person lets the person in."""
        assert log_in_by_key(open_container, "alice", "id -un").stdout == "alice\n"

    @pytest.mark.parametrize("how", ["key", "password"])
    def test_access_filter(self, open_container: Machine, how: str) -> None:
        """Whom the filter does not find is kept out, with the right key and the right password."""
        if how == "key":
            done = log_in_by_key(open_container, "bob", "true")
        else:
            done = log_in(open_container, "bob", PASSWORDS["bob"], "true")
        assert (done.returncode, done.stdout) == (255, "")

    def test_telephone(self, open_container: Machine) -> None:
        """A login that is confirmed on a telephone after a while is a login."""
        begins = time.monotonic()
        done = log_in(open_container, TELEPHONE, PASSWORDS[TELEPHONE], "id -un")
        assert done.stdout == f"{TELEPHONE}\n", done.stderr
        assert time.monotonic() - begins >= CONFIRMED_AFTER

    def test_healthy(self, open_container: Machine) -> None:
        """No unit of the container failed, and security updates are due each day."""
        assert open_container.failed_units() == []
        timer = open_container.run("systemctl", "is-active", "apt-daily-upgrade.timer").stdout
        assert timer == "active\n"
        asked = ("apt-config", "dump", "APT::Periodic::Unattended-Upgrade")
        assert open_container.run(*asked).stdout == 'APT::Periodic::Unattended-Upgrade "1";\n'


class TestEnvironment:
    """What the container was given, as its sessions and services have it."""

    def test_session(self, open_container: Machine) -> None:
        """A session has every variable of one line, by pam_env and by sshd."""
        found = variables(log_in_by_key(open_container, "alice", "env -0"))
        assert {name: found.get(name) for name in COMMON | HASHED} == COMMON | HASHED
        assert "INJECTED" not in found
        assert "LINES_OF" not in found

    def test_pam_alone(self, open_container: Machine) -> None:
        """Where sshd is not, pam_env reads what it can, and nothing else."""
        found = variables(open_container.run("env", "-i", "su", "alice", "-c", "env -0"))
        assert {name: found.get(name) for name in COMMON} == COMMON
        assert not {*HASHED, *LINES, "INJECTED"} & set(found)

    def test_login_shell(self, open_container: Machine) -> None:
        """A login shell has every variable, those of several lines too."""
        found = variables(log_in_by_key(open_container, "alice", "exec bash -lc 'env -0'"))
        expected = COMMON | HASHED | LINES
        assert {name: found.get(name) for name in expected} == expected
        assert "INJECTED" not in found

    def test_service(self, open_container: Machine) -> None:
        """A service with EnvironmentFile=/etc/environment has every variable."""
        unit = ("--pipe", "--wait", "--quiet", "--property=EnvironmentFile=/etc/environment")
        found = variables(open_container.run("systemd-run", *unit, "env", "-0"))
        expected = COMMON | HASHED | LINES
        assert {name: found.get(name) for name in expected} == expected
        assert found["SSSD_LDAP_URI"] == "ldap://127.0.0.1"

    def test_secret(self, container: Machine) -> None:
        """The directory's secret is in no session and no service."""
        assert READER_SECRET not in container.run("cat", "/etc/environment").stdout
        unit = ("--pipe", "--wait", "--quiet", "--property=EnvironmentFile=/etc/environment")
        found = variables(container.run("systemd-run", *unit, "env", "-0"))
        assert found["LDAP_URI"] == "ldap://127.0.0.1"
        assert "LDAP_BIND_SECRET" not in found
        assert READER_SECRET not in "".join(found.values())

    def test_before_all(self, open_container: Machine) -> None:
        """The file is there before a service of the ordinary kind starts."""
        units = ("container-environment.service", "dbus.service", "ssh.service")
        names = ("ExecMainExitTimestampMonotonic", *["ExecMainStartTimestampMonotonic"] * 2)
        written, *others = (
            int(open_container.run("systemctl", "show", "--value", "-p", name, unit).stdout)
            for unit, name in zip(units, names, strict=True)
        )
        assert 0 < written < min(others)


class TestContradiction:
    """A container of base whose environment says too little, or two things at once."""

    def test_says_what_is_wrong(self, lonely: Machine, scratch: Path) -> None:
        """The one unit that failed names each variable once, as the console does."""
        assert lonely.failed_units() == ["sssd-configure.service"]
        status = lonely.run("systemctl", "status", "--full", "sssd-configure").stdout
        shown = scratch / "lonely.console"
        wait_for("a prompt", lambda: b" login: " in shown.read_bytes(), timeout=60)
        console = shown.read_text(errors="replace")
        for told in (status, console):
            assert told.count("LDAP_URI and SSSD_LDAP_URI say different things") == 1
            assert told.count("LDAP_BIND_DN is set, but LDAP_BIND_SECRET") == 1
        assert lonely.run("systemctl", "is-active", "ssh.service").stdout == "active\n"


def test_startup(references: dict[str, str], scratch: Path, tmp_path: Path) -> None:
    """Proxmox VE starts init, though the image has no entrypoint, and a child's CMD counts.

    Of an OCI archive it joins Entrypoint and Cmd, and sets no command where that is "/sbin/init"
    (PVE::API2::LXC, create_vm); its set-up of Debian wants a link to systemd there
    (PVE::LXC::Setup::Debian, setup_init).
    """
    child = tmp_path / "child"
    child.mkdir()
    (child / "Dockerfile").write_text('ARG PARENT\nFROM ${PARENT}\nCMD ["/bin/app", "serve"]\n')
    reference = references["base"].replace("/base:", "/child:")
    image.build(child, reference, PARENT=references["base"])
    expected = {"base": "", "child": "/bin/app serve"}
    for name, command in expected.items():
        layout = Layout(tmp_path / f"{name}.layout")
        image.fetch(references.get(name, reference), layout)
        runtime = json.loads(run("skopeo", "inspect", "--config", str(layout)))["config"]
        assert "Entrypoint" not in runtime
        assert runtime["StopSignal"] == "SIGRTMIN+3"
        assert (runtime["Cmd"] == ["/sbin/init"]) == (name == "base")
        startup = Startup.of(syncd.open_image(str(layout)).image)
        assert startup.entrypoint == command
        assert startup.starts_init == (name == "base")


def test_nodejs(templates: dict[str, Path], tmp_path: Path) -> None:
    """An image on base is base and more: Node.js 24 runs, people are known, nothing failed."""
    root = machine.unpack(templates["nodejs"], tmp_path / "root")
    with (
        Directory(tmp_path / "ldap") as directory,
        machine.boot(root, directory.env, directory.network) as booted,
    ):
        booted.wait_for("multi-user.target")
        assert booted.run("node", "--version").stdout.startswith("v24.")
        assert booted.run("npm", "--version").returncode == 0
        assert booted.run("getent", "passwd", "alice").returncode == 0
        assert booted.failed_units() == []


def test_foreign_archive(references: dict[str, str], archive: NodeArchive) -> None:
    """What another key than NodeSource's has signed becomes no image."""
    told = {"BASE_IMAGE": references["base"], "NODE_REPOSITORY": archive.url}
    with pytest.raises(CommandError, match="is not signed"):
        image.build(IMAGES / "nodejs", references["nodejs"].replace("nodejs", "foreign"), **told)


def test_python(templates: dict[str, Path], tmp_path: Path) -> None:
    """A virtual environment with pip is made without a network."""
    root = machine.unpack(templates["python"], tmp_path / "root")
    run("chroot", root, "python3", "-m", "venv", "/srv/venv")
    assert run("chroot", root, "/srv/venv/bin/pip", "--version").startswith("pip ")


def test_docs(templates: dict[str, Path], tmp_path: Path) -> None:
    """The pages of docs/ are served: each, and a first one that leads to each."""
    root = machine.unpack(templates["docs"], tmp_path / "root")
    with machine.boot(root) as booted:
        booted.wait_for("nginx.service")
        (root / "root/get").write_text(GET)
        first = booted.run("perl", "/root/get", "/").stdout
        for page in (CHECKOUT / "docs").glob("*.md"):
            assert f'href="{page.stem}.html"' in first
            title = page.read_text().partition("\n")[0].removeprefix("# ")
            assert title in booted.run("perl", "/root/get", f"/{page.stem}.html").stdout
        assert "404 Not Found" in booted.run("perl", "/root/get", "/none.html").stdout


def test_docker(templates: dict[str, Path], references: dict[str, str], tmp_path: Path) -> None:
    """In an unprivileged container Docker Engine makes images, and runs and builds on them.

    Without a registry the image is made of the container's own shell.  Of base, which is carried
    there as a file, `docker run -it` gives a shell.
    """
    root = tmp_path / "root"
    done = machine.unpack_unprivileged(templates["docker"], root)
    assert done.returncode == 0, done.stderr
    with machine.boot_unprivileged(root) as booted:
        booted.wait_for("docker.service")
        shell = ("/bin", "/lib", "/lib64", "/usr/bin/sh", "/usr/bin/dash", "/usr/lib64", LIBC)
        booted.run("sh", "-c", f"tar -c {' '.join(shell)} | docker import - shell")
        run_it = ("docker", "run", "--rm")
        assert booted.run(*run_it, "shell", "sh", "-c", "echo $$").stdout == "1\n"
        build = "printf 'FROM shell\nRUN echo made >/made\n' | docker build --tag built -"
        assert booted.run("sh", "-c", build).returncode == 0
        read = ("sh", "-c", "read line </made && echo $line")
        assert booted.run(*run_it, "built", *read).stdout == "made\n"
        driver = booted.run("docker", "info", "--format", "{{.Driver}}").stdout
        assert driver == "overlay2\n"
        assert booted.run("docker", "compose", "version").returncode == 0
        # Neither this format nor the skopeo here takes layers of zstd.
        plain, archive = f"dir:{tmp_path}/plain", f"docker-archive:{root}/root/base.tar:base:latest"
        copy = ("skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-decompress")
        run(*copy, f"docker://{references['base']}", plain)
        run("skopeo", "copy", "-q", plain, archive)
        (root / "root/base.tar").chmod(0o644)
        assert booted.run("docker", "load", "--input", "/root/base.tar").returncode == 0
        typed = "echo $((6 * 7)) on $(tty), $(id -un); exit"
        terminal = "script -qec 'docker run --rm -it base /bin/bash' /dev/null"
        shown = booted.run("sh", "-c", f"printf '%s\\n' '{typed}' | {terminal}").stdout
        assert "42 on /dev/pts/0, root" in shown


def test_reproducible(
    templates: dict[str, Path], repository: GitHub, registry: Registry, tmp_path: Path
) -> None:
    """Two builds from the same packages, by the workflow and by hand, differ in times alone."""
    again, folder, template = f"{registry.address}/acme/server/again:main", "base", "again.tar.zst"
    shutil.copytree(repository.work / "images/base", tmp_path / folder)
    debian = f"{registry.address}/docker.io/library/debian"
    replace(tmp_path / folder / "Dockerfile", "docker.io/library/debian:trixie-slim", debian)
    image.build(tmp_path / folder, again, "--no-cache")
    run(SYNCD, "convert", "--plain-http", again, tmp_path / template)
    first = machine.unpack(templates["base"], tmp_path / "first")
    second = machine.unpack(tmp_path / template, tmp_path / "second")
    lines = tree.differences(tree.scan(second), tree.scan(first))
    assert [line for line in lines if ": mtime is " not in line] == []
