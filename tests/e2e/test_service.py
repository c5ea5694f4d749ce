"""`make install`, syncd.service and syncd.socket under Debian 13's systemd, as README.md says it.

One machine is installed and booted for all of it, on the loopback of this one: an administrator's
steps and GitHub's deliveries in turn.  How the service is confined is asked of a program that
systemd starts in the service's place, under everything the unit says.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e import checkout, image, machine
from tests.e2e.command import alone_with, wait_for
from tests.e2e.conftest import Image
from tests.e2e.daemon import STOPS_WITHIN, Answer, Client, package_event
from tests.e2e.image import Layout
from tests.e2e.machine import Machine
from tests.e2e.registry import Registry
from tests.metrics import Scrape

PACKAGES = (
    *("ca-certificates", "curl", "dbus", "git", "make", "python3", "python3-venv"),
    "systemd-sysv",
)
PORT = 8750  # of syncd.socket; one machine has it at a time

# A careful administrator's umask must not keep the service from its own program.
INSTALL = "umask 077 && make install"

STATE = "/var/lib/syncd"

SETTINGS = """\
[schedule]
sweep = "off"
[[registry]]
host = "{host}"
plain_http = true
[[image]]
repository = "{repository}"
tags = ["{tag}"]
[[target]]
name = "local"
type = "directory"
path = "{storage}"
"""

# The rules of docs/operate.md for a directory target.
DIRECTORY_TARGET = """\
[Service]
DynamicUser=no
User=root
Group=syncd
ReadWritePaths=/var/lib/vz/template/cache
"""

PROBE = """\
#!/bin/sh
exec >"$STATE_DIRECTORY/probe" 2>/dev/null
while read -r attempt; do
    (eval "$attempt") >/dev/null && echo "yes $attempt" || echo "no $attempt"
done </etc/syncd/attempts
"""

ALLOWED = (
    'touch "$STATE_DIRECTORY/mine"',
    "touch /tmp/mine",
    "touch /var/tmp/mine",
    'test -s "$CREDENTIALS_DIRECTORY/webhook-secret"',
    'test -s "$CREDENTIALS_DIRECTORY/api-token"',
    "test -r /etc/syncd/syncd.toml",
    "curl --silent http://{registry}/v2/",
)

# Not among them: kernel settings, /dev/kmsg and limits of cgroups.  systemd-nspawn refuses the
# first two to everybody, and a machine may have no controllers for the third.
REFUSED = (
    'test "$(id -u)" = 0',
    "touch /etc/theirs",
    "touch /usr/theirs",
    "touch /opt/syncd/theirs",
    "touch /run/theirs",
    "touch /var/lib/vz/theirs",
    "ls /root",
    "test -e /home/somebody",
    "test -e /tmp/of-the-host",
    "cat /etc/syncd/webhook-secret",
    "cat /proc/1/cmdline",
    'test "$(ulimit -H -c)" != 0',
    'test "$(cat /proc/self/uid_map | wc -l)" = 1',
    "test -e /proc/meminfo",
    "rmdir $(mktemp -d /sys/fs/cgroup/theirs.XXX)",
    "unshare --user true",
    "hostname theirs",
    'mknod "$STATE_DIRECTORY/disk" b 8 0',
    'touch "$STATE_DIRECTORY/suid" && chmod 4755 "$STATE_DIRECTORY/suid"',
    "nice -n -5 true && test $(nice -n -5 nice) -lt 10",
    "python3 -c 'import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)'",
    "python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=7)'",
)


class Service:
    """The installed service of a booted machine, whose file system is `root`."""

    def __init__(self, booted: Machine, root: Path) -> None:
        self.machine = booted
        self.root = root
        webhook_secret, api_token = (
            (root / "etc/syncd" / name).read_text().strip()
            for name in ("webhook-secret", "api-token")
        )
        self.http = Client(PORT, webhook_secret, api_token)

    def systemctl(self, *words: str) -> str:
        """Run systemctl, which must succeed; return what it printed."""
        done = self.machine.run("systemctl", *words)
        assert done.returncode == 0, f"{done.stderr}\n{self.log()}"
        return done.stdout

    def shown(self, name: str) -> str:
        """Return a property of syncd.service."""
        return self.systemctl("show", "--value", f"--property={name}", "syncd.service").strip()

    def log(self, *options: str) -> str:
        """Return what the journal has of the service, as journalctl's `options` choose."""
        return self.machine.run("journalctl", "--unit=syncd", "--output=cat", *options).stdout

    def says(self, event: str) -> bool:
        """Tell whether an event of this name is in the log."""
        return f"\n{event}" in f"\n{self.log()}"

    def templates(self, storage: str) -> list[str]:
        """Return the names of the templates below a storage's folder."""
        return self.machine.run("ls", f"{storage}/template/cache").stdout.split()

    @contextmanager
    def configured(self, content: str) -> Iterator[None]:
        """Have another configuration in place, which the service is not told of."""
        file = self.root / "etc/syncd/syncd.toml"
        own = file.read_text()
        file.write_text(content)
        try:
            yield
        finally:
            file.write_text(own)

    @contextmanager
    def drop_in(self, content: str) -> Iterator[None]:
        """Restart the service with a drop-in; without it again at the end."""
        folder = self.root / "etc/systemd/system/syncd.service.d"
        folder.mkdir()
        (folder / "override.conf").write_text(content)
        try:
            self._restart()
            yield
        finally:
            shutil.rmtree(folder)
            self._restart()

    def _restart(self) -> None:
        self.systemctl("daemon-reload")
        self.systemctl("restart", "syncd.service")


def settings(watched: Image, storage: str = f"{STATE}/storage") -> str:
    """Return a configuration that watches one image and publishes below `storage`."""
    repository, tag = watched.reference.rsplit(":", 1)
    host = repository.split("/")[0]
    return SETTINGS.format(host=host, repository=repository, tag=tag, storage=storage)


@pytest.fixture(scope="module")
def watched(registry: Registry, small: Image) -> Image:
    """Push the image that the service watches."""
    return small.push(f"{registry.address}/service/image:latest")


@pytest.fixture(scope="module")
def service(scratch: Path, watched: Image) -> Iterator[Service]:
    """Install as an administrator does, configure, boot, and enable the units."""
    root = checkout.unpack(PACKAGES, scratch / "service")
    checkout.run_inside(root, INSTALL, timeout=300)
    (root / "etc/syncd/syncd.toml").write_text(settings(watched))
    with alone_with(f"port-{PORT}"), machine.boot(root, network=machine.OWN_NETWORK) as booted:
        booted.wait_for("multi-user.target")
        installed = Service(booted, root)
        installed.systemctl("enable", "--now", "syncd.socket", "syncd.service")
        yield installed


def test_enabled(service: Service) -> None:
    """The units start at once, the service says when it is ready, and nothing else failed."""
    assert service.shown("Type") == "notify"
    assert service.shown("ActiveState") == "active"
    assert service.shown("StatusText") == "Running"
    assert service.systemctl("is-active", "syncd.socket") == "active\n"
    assert service.systemctl("is-enabled", "syncd.socket", "syncd.service").split() == [
        "enabled",
        "enabled",
    ]
    assert service.machine.failed_units() == []


def test_verified(service: Service) -> None:
    """No fault in the units is found by systemd."""
    done = service.machine.run("systemd-analyze", "verify", "syncd.service", "syncd.socket")
    assert (done.returncode, done.stderr) == (0, "")


def test_exposure(service: Service) -> None:
    """The exposure that systemd itself counts for the sandbox is at most 1.2 of 10."""
    done = service.machine.run(
        *("systemd-analyze", "security", "--no-pager", "--threshold=12", "syncd.service")
    )
    assert done.returncode == 0, done.stdout


def test_delivery(service: Service, watched: Image) -> None:
    """A delivery through the socket, signed with the generated secret, brings the template."""
    job = service.http.sync(watched.reference)
    assert job["outcome"] in ("published", "unchanged"), job
    assert service.templates(f"{STATE}/storage") == [watched.template_name]


def test_check(service: Service, watched: Image) -> None:
    """`syncd check`, typed by root, finds the image and nothing wrong."""
    done = service.machine.run("/opt/syncd/bin/syncd", "check")
    assert done.returncode == 0, done.stdout
    assert f"image {watched.reference}: sha256:" in done.stdout


def test_forged_delivery(service: Service, watched: Image) -> None:
    """A delivery signed with anything else is refused."""
    assert service.http.deliver(package_event(watched.reference), "forged").status == 401


def test_log(service: Service) -> None:
    """The journal has the service's events as words, each with its priority."""
    entries = map(json.loads, service.log("_COMM=syncd", "--output=json").splitlines())
    told = {entry["MESSAGE"].split()[0]: entry["PRIORITY"] for entry in entries}
    assert told["ready"] == "6"
    assert told["image"] == "4"  # image has warnings
    assert not [event for event in told if event.startswith("<")]


def test_restart(service: Service, watched: Image) -> None:
    """Deliveries sent while the service restarts wait in the socket; none is refused."""
    event = package_event(watched.reference)
    before = service.shown("MainPID")

    def restart() -> None:
        service.systemctl("restart", "syncd.service")

    answers: list[Answer] = []
    with ThreadPoolExecutor() as pool:
        restarted = pool.submit(restart)
        while not restarted.done():
            answers.append(service.http.deliver(event))
        restarted.result()
    assert service.shown("MainPID") != before
    assert {answer.status for answer in answers} == {202}
    assert len(answers) > 1
    done = service.http.finished(answers[-1].body["jobs"][0])
    assert done["outcome"] == "unchanged"


def test_restarts(service: Service) -> None:
    """However often a person restarts the service, systemd does not refuse to start it."""
    for _ in range(7):  # five in ten seconds are too many by default: systemd.unit(5), StartLimit
        service.systemctl("restart", "syncd.service")
    assert service.shown("ActiveState") == "active"
    assert service.systemctl("is-active", "syncd.socket") == "active\n"


def test_credentials(service: Service) -> None:
    """The secrets reach the service alone: others read neither the files nor what it was given."""
    for place in ("/etc/syncd", "/run/credentials/syncd.service"):
        for name in ("webhook-secret", "api-token"):
            file = f"{place}/{name}"
            as_nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
            assert service.machine.run("test", "-s", file).returncode == 0
            assert service.machine.run(*as_nobody, "cat", file).returncode == 1
    environment = service.machine.run("cat", f"/proc/{service.shown('MainPID')}/environ").stdout
    assert "CREDENTIALS_DIRECTORY=/run/credentials/syncd.service" in environment
    # The kernel gives these files to root when a process is not dumpable, whoever runs it: proc(5).
    owner = service.machine.run("stat", "--format=%U", f"/proc/{service.shown('MainPID')}/mem")
    assert owner.stdout == "root\n"


def test_reload(service: Service, watched: Image) -> None:
    """A reload takes a good configuration, and keeps the old one when the new one is bad."""
    before = service.shown("MainPID")
    with service.configured(f"{settings(watched)}nonsense = 1\n"):
        assert service.machine.run("systemctl", "reload", "syncd.service").returncode != 0
        rejected = "configuration rejected, the old one stays"
        wait_for("a rejection", lambda: service.says(rejected), timeout=10)
        assert service.shown("ActiveState") == "active"
        assert "the new one was rejected" in service.shown("StatusText")
        assert service.http.sync(watched.reference)["outcome"] == "unchanged"

    service.systemctl("reload", "syncd.service")
    wait_for("a reload", lambda: service.says("reloaded"), timeout=10)
    assert (service.shown("ActiveState"), service.shown("MainPID")) == ("active", before)
    assert service.shown("StatusText") == "Running"


def test_metrics(service: Service) -> None:
    """Confined as it is, the service tells its memory, its descriptors and its space."""
    process = service.shown("MainPID")

    def told(name: str) -> float:
        return Scrape(service.http.metrics())(name)

    wait_for("a look at the space", lambda: "state_free" in service.http.metrics(), timeout=30)
    assert 0 < told("syncd_state_free_bytes") < told("syncd_state_size_bytes")
    opened = service.machine.run("ls", f"/proc/{process}/fd").stdout.split()
    assert abs(told("process_open_fds") - len(opened)) < 20
    assert told("process_max_fds") >= 8192
    assert told("process_resident_memory_bytes") > 10 << 20
    assert abs(time.time() - told("process_start_time_seconds")) < 3600
    began = service.machine.run("stat", "--format=%Y", f"/proc/{process}").stdout
    assert abs(float(began) - told("process_start_time_seconds")) < 60


def test_stop(service: Service, watched: Image) -> None:
    """The service stops in time and cleanly; the next delivery starts it again."""
    began = time.monotonic()
    # Not the socket: systemctl says so in a warning, and the next delivery proves it.
    service.systemctl("stop", "syncd.service")
    assert time.monotonic() - began < STOPS_WITHIN
    assert (service.shown("ActiveState"), service.shown("Result")) == ("inactive", "success")
    assert service.http.sync(watched.reference)["outcome"] == "unchanged"
    assert service.shown("ActiveState") == "active"


def test_watchdog(service: Service, watched: Image) -> None:
    """The service pings the watchdog while it is well, and is replaced when it is not."""
    with service.drop_in("[Service]\nWatchdogSec=2\nRestartSec=100ms\n"):
        before = service.shown("MainPID")
        time.sleep(5)
        assert (service.shown("MainPID"), service.shown("NRestarts")) == (before, "0")
        service.systemctl("kill", "--signal=STOP", "syncd.service")
        wait_for("another process", lambda: service.shown("NRestarts") == "1", timeout=30)
        assert service.http.sync(watched.reference)["outcome"] == "unchanged"


def test_sandbox(service: Service, registry: Registry) -> None:
    """What the service needs is allowed to it, and nothing else is."""
    allowed, refused = (
        [attempt.replace("{registry}", registry.address) for attempt in attempts]
        for attempts in (ALLOWED, REFUSED)
    )
    (service.root / "etc/syncd/attempts").write_text("\n".join([*allowed, *refused]) + "\n")
    probe = service.root / "usr/local/sbin/probe"
    probe.write_text(PROBE)
    probe.chmod(0o755)
    service.machine.run("mkdir", "-p", "/var/lib/vz/template/cache", "/home/somebody")
    service.machine.run("touch", "/tmp/of-the-host")
    with service.drop_in("[Service]\nExecStartPre=/usr/local/sbin/probe\n"):
        found = service.machine.run("cat", f"{STATE}/probe").stdout.splitlines()
        assert found == [*(f"yes {one}" for one in allowed), *(f"no {one}" for one in refused)]
        # It is the sandbox that refuses, not this machine: to root outside all of it is allowed.
        outside = ("STATE_DIRECTORY=/tmp", "CREDENTIALS_DIRECTORY=/run/credentials/syncd.service")
        service.machine.run("env", *outside, "/usr/local/sbin/probe")
        found = service.machine.run("cat", "/tmp/probe").stdout.splitlines()
        assert [line for line in found if line.startswith("no ")] == []
        assert len(found) == len(allowed) + len(refused)


def test_directory_target(service: Service, watched: Image) -> None:
    """With the drop-in for a directory target, templates appear in a folder of the host."""
    service.machine.run("mkdir", "-p", "/var/lib/vz/template/cache")
    configured = service.configured(settings(watched, "/var/lib/vz"))
    with configured, service.drop_in(DIRECTORY_TARGET):
        assert service.shown("User") == "root"
        assert service.http.sync(watched.reference)["outcome"] == "published"
        assert service.templates("/var/lib/vz") == [watched.template_name]
    assert service.http.sync(watched.reference)["outcome"] == "unchanged"


def test_commands_of_root(service: Service, registry: Registry, scratch: Path) -> None:
    """What root's own commands leave in the cache, the service takes up when it starts again."""
    layout, host = Layout(scratch / "by-root"), f"{registry.address}/service"
    for name in ("below", "above"):
        (scratch / name / "srv").mkdir(parents=True)
        (scratch / name / "srv" / name).write_text("a layer of its own\n")
        image.pack(scratch / name, scratch / f"{name}.tar")
    image.create(layout, scratch / "below.tar")
    layout.push(f"{host}/below:latest")
    service.systemctl("stop", "syncd.service")
    done = service.machine.run("/opt/syncd/bin/syncd", "sync", f"{host}/below:latest")
    assert done.returncode == 0, done.stderr
    service.systemctl("start", "syncd.service")

    image.add_layer(layout, scratch / "above.tar")
    above = Image(f"{host}/above:latest", layout, scratch / "above")
    layout.push(above.reference)
    mark = registry.mark()
    with service.configured(settings(above)):
        service.systemctl("reload", "syncd.service")
        # The reload looks at once at what is new, so the delivery's job may find it there.
        assert service.http.sync(above.reference)["outcome"] != "failed", service.log()
        assert [name for name in service.templates(f"{STATE}/storage") if "_above_" in name]
    service.systemctl("reload", "syncd.service")
    assert layout.layers[0] not in registry.blobs(mark)
