"""What a Proxmox VE node does with a template, without one: unpack it unprivileged, and boot it.

A user namespace stands for the unprivileged container's (its ids are those of Proxmox VE: 65536
from 100000 on), systemd-nspawn for its start.  Needs root; needs no systemd on the machine itself
and leaves nothing registered or mounted.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from tests.e2e.command import CommandError, attempt, run, wait_for

FIRST_ID = 100_000
IDS = 65_536

_LIKE_PROXMOX = (
    *(f"--private-users={FIRST_ID}:{IDS}", "--private-users-ownership=off"),
    *("--capability=all", "--drop-capability=CAP_MAC_ADMIN,CAP_MAC_OVERRIDE"),
    "--drop-capability=CAP_SYS_TIME,CAP_SYS_MODULE,CAP_SYS_RAWIO",
    *("--system-call-filter=@keyring bpf", "--bind=/proc:/run/nesting/proc"),
    "--bind=/sys:/run/nesting/sys",
)
"""An unprivileged container with the features nesting and keyctl.

LXC keeps all capabilities but these, within the container's user namespace (common.conf), and
shows a whole /proc and /sys beside those in use, without which the kernel mounts no further ones.
"""

OWN_NETWORK = Path("/proc/self/ns/net")
"""The network of this machine, for a machine booted on its loopback."""

PVE_UNPACK = (
    *("tar", "xpf", "-", "--zstd", "--totals", "--one-file-system", "-p", "--sparse"),
    *("--numeric-owner", "--acls", "--xattrs", "--xattrs-include=user.*"),
    *("--xattrs-include=security.capability", "--warning=no-file-ignored"),
    *("--warning=no-xattr-write", "-C", ".", "--skip-old-files", "--anchored"),
    *("--exclude", "./dev/*"),
)
"""The command with which Proxmox VE unpacks a template: PVE::LXC::Create, `restore_tar_archive`."""


def unpack(template: Path, root: Path) -> Path:
    """Unpack a template as root into the new folder `root`, with all that it holds."""
    root.mkdir(parents=True)
    xattrs = ["--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability"]
    run("tar", "--zstd", "--numeric-owner", *xattrs, "-xpf", template, "-C", root)
    return root


def unpack_unprivileged(template: Path, root: Path) -> subprocess.CompletedProcess[str]:
    """Unpack a template as Proxmox VE does for an unprivileged container; return what tar said."""
    root.mkdir(parents=True)
    os.chown(root, FIRST_ID, FIRST_ID)
    with _user_namespace() as holder, template.open("rb") as archive:
        enter = ["nsenter", f"--user=/proc/{holder}/ns/user", "--setuid", "0", "--setgid", "0"]
        # The namespace's root cannot enter the folders above; the working folder it has already.
        return subprocess.run(
            [*enter, *PVE_UNPACK],
            cwd=root,
            stdin=archive,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


class Machine:
    """A booted container; `leader` is its init, as a process of this machine."""

    def __init__(self, leader: int) -> None:
        self.leader = leader

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program inside, whatever its exit status."""
        return attempt("nsenter", "--target", str(self.leader), "--all", *argv)

    def wait_for(self, unit: str, timeout: float = 90) -> None:
        """Return once `unit` is active; raise CommandError after `timeout` seconds."""

        def active() -> bool:
            return self.run("systemctl", "is-active", "--quiet", unit).returncode == 0

        wait_for(f"{unit} in the booted image", active, timeout, pause=0.5)

    def failed_units(self) -> list[str]:
        """Return the names of the units that failed."""
        listed = self.run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
        return [line.split()[0] for line in listed.stdout.splitlines()]


class Disk:
    """A small disk of its own, mounted on `folder` while the context is open."""

    def __init__(self, folder: Path, size: str = "16m") -> None:
        self.folder = folder
        self._size = size

    def __enter__(self) -> Disk:
        self.folder.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", self.folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        run("umount", self.folder)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Take no writes, as a file system does after an error of its disk."""
        run("mount", "-o", "remount,ro", self.folder)
        yield
        run("mount", "-o", "remount,rw", self.folder)

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Have no byte free."""
        filler = self.folder / "filler"
        attempt("dd", "if=/dev/zero", f"of={filler}", "bs=4k")
        yield
        filler.unlink()


@contextmanager
def boot(
    root: Path,
    env: Mapping[str, str] | None = None,
    network: Path | None = None,
    *,
    within: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[Machine]:
    """Boot a root file system with its own systemd; halt it at the end.

    Its init gets `env`, as Proxmox VE gives a container its environment.  `network` is the network
    namespace to be in; without it the machine is alone on a loopback of its own.  `within` is
    a command that runs another one, `options` are further ones of systemd-nspawn's.
    """
    net = f"--network-namespace-path={network}" if network else "--private-network"
    given = [f"--setenv={name}={value}" for name, value in (env or {}).items()]
    console = root.with_name(f"{root.name}.console")
    with console.open("wb") as log:
        nspawn = subprocess.Popen(
            [
                *within,
                *("systemd-nspawn", "--directory", str(root), "--boot", "--register=no"),
                *("--keep-unit", net, f"--machine=e2e-{uuid4().hex[:8]}", *given, *options),
            ],
            # systemd 257 refuses the hierarchy of cgroup v1 that nspawn would choose by itself on
            # a machine without systemd.
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Machine(wait_for("an init", lambda: _init_below(nspawn), timeout=30))
    except CommandError as error:
        error.add_note(console.read_text(errors="replace")[-4000:])
        raise
    finally:
        # systemd-nspawn passes SIGTERM on as the request to halt.
        nspawn.send_signal(signal.SIGTERM)
        try:
            nspawn.wait(60)
        except subprocess.TimeoutExpired:
            nspawn.kill()
            nspawn.wait()
            raise


@contextmanager
def boot_unprivileged(root: Path) -> Iterator[Machine]:
    """Boot a root that `unpack_unprivileged` made, in which containers can be run; halt it."""
    with _control_group() as within, boot(root, within=within, options=_LIKE_PROXMOX) as booted:
        yield booted


@contextmanager
def _control_group() -> Iterator[tuple[str, ...]]:
    """Make a control group of version 2 for a container's root; yield what runs a command in it."""
    top = Path("/sys/fs/cgroup")
    unified = top / "unified"  # where version 1 has the place itself
    group = (unified if unified.exists() else top) / f"e2e-{uuid4().hex[:8]}"
    group.mkdir()
    try:
        for file in (".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(group / file, FIRST_ID, FIRST_ID)
        yield "/bin/sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh"
    finally:
        for folder in sorted(group.rglob("*/"), reverse=True):
            folder.rmdir()
        group.rmdir()


def _init_below(nspawn: subprocess.Popen[bytes]) -> int | None:
    """Return the pid of the systemd that `nspawn` started, once it is that.

    Before, the process is still systemd-nspawn itself, on the root of this machine: a program run
    there would speak of the wrong systemd.
    """
    if nspawn.poll() is not None:
        raise CommandError(f"systemd-nspawn ended with {nspawn.returncode}")
    with suppress(FileNotFoundError):
        for child in Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
    return None


@contextmanager
def _user_namespace() -> Iterator[int]:
    """Hold a user namespace with the ids of an unprivileged container; yield its holder's pid."""
    holder = subprocess.Popen(["unshare", "--user", "sleep", "infinity"])
    try:
        own = Path("/proc/self/ns/user").readlink()
        link = Path(f"/proc/{holder.pid}/ns/user")
        wait_for("a user namespace", lambda: link.readlink() != own, timeout=10)
        for kind in ("uid", "gid"):
            Path(f"/proc/{holder.pid}/{kind}_map").write_text(f"0 {FIRST_ID} {IDS}\n")
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()
