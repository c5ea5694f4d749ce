"""The unit of systemd that runs a configuration, and what root can do with it.

What the service may read and write is decided by its unit: its user, its sandbox, its credentials.
Where no daemon runs, a command can be run in a unit of its own with the same settings, as they are
written: systemd-run(1) does not take all that a file may say.  Its credentials are found where the
configuration names those of the service.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

NAME = "syncd"

_UNITS = Path("/run/systemd/system")  # is there where systemd is (sd_booted(3))
_CREDENTIALS = Path("/run/credentials")
_YES = ("1", "yes", "true", "on")  # systemd.syntax(7)
_LONGEST = 1800  # seconds of a command in a transient unit
_LARGEST = 1 << 20  # bytes of a credential: systemd takes no larger one

# What is about the service as such: how it starts, ends, speaks, and is found.
_NOT_TAKEN = (
    *("Exec", "Type", "Restart", "Timeout", "Watchdog", "RuntimeDirectory", "Sockets", "Notify"),
    *("Standard", "PIDFile", "BusName", "RemainAfterExit", "SuccessExitStatus", "OOMPolicy"),
)

FAULTS = {
    203: "its program cannot be executed",
    216: "its group is not there",
    217: "its user is not there",
    226: "its sandbox cannot be set up: is a folder of ReadWritePaths= not there?",
    238: "its state directory cannot be set up",
    243: "a credential cannot be read: is a file of LoadCredential= not there?",
}
"""What the exit status says of a service that systemd could not start (systemd.exec(5))."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended in a unit: its exit status, or systemd's own, and what it printed."""

    status: int
    printed: str


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as it is written: the assignments of its section [Service], in their order."""

    assignments: tuple[tuple[str, str], ...]

    @property
    def command(self) -> list[str]:
        """The words of what the service runs; none where that cannot be told."""
        lines = [value for key, value in self.assignments if key == "ExecStart"]
        try:
            return shlex.split(lines[-1].lstrip("@-:+!")) if lines else []
        except ValueError:
            return []

    def runs(self, config: Path | None) -> bool:
        """Tell whether the service runs `syncd --config CONFIG run` of this configuration."""
        match self.command:
            case [_, "--config", file, "run", *_]:
                return config is not None and Path(file).resolve() == config.resolve()
        return False

    def run(self, words: Sequence[str]) -> Ended:
        """Run another command of syncd as the service would be; wait for its end.

        Nothing of the unit that this takes is left.  Raise OSError or TimeoutExpired.
        """
        name = f"{NAME}-{words[0]}-{os.getpid()}.service"
        file = _UNITS / name
        with tempfile.TemporaryDirectory(prefix=f"{NAME}-", dir="/run") as folder:
            output = Path(folder) / "output"
            try:
                file.write_text(self._alike(name, words, output))
                _systemctl("start", name)
                status = _systemctl("show", "--value", "--property=ExecMainStatus", name).strip()
            finally:
                file.unlink(missing_ok=True)
                _systemctl("reset-failed", name)
            printed = output.read_text("utf-8") if output.exists() else ""
        return Ended(int(status) if status.isdigit() else 0, printed)

    def changed_credentials(self) -> list[str]:
        """Return the credentials that are others on disk than the running service was given.

        systemd hands them over when the service starts, and not again (systemd.exec(5)).  Those of
        the service are looked for as its process sees them: systemd hides them from the commands
        that it runs for a reload.
        """
        process = _systemctl("show", "--value", "--property=MainPID", f"{NAME}.service").strip()
        theirs = Path(f"/proc/{process}/root{_CREDENTIALS}/{NAME}.service")
        return [
            name
            for name, source in self._credentials()
            if (given := _content(theirs / name)) is not None
            and (wanted := _content(Path(source))) is not None
            and given != wanted
        ]

    def _alike(self, name: str, words: Sequence[str], output: Path) -> str:
        """Return a unit that runs something once under everything that the service is under."""
        lines = [f"{key}={value}" for key, value in self._taken()]
        settings = dict(self.assignments)
        if settings.get("DynamicUser") in _YES and "User" not in settings:
            lines.append(f"User={NAME}")  # who is called as the unit (systemd.exec(5))
        if self._credentials():
            own, theirs = (f"{_CREDENTIALS}/{unit}" for unit in (name, f"{NAME}.service"))
            lines.append(f"BindReadOnlyPaths={own}:{theirs}")
        lines += [
            "Type=oneshot",
            f"TimeoutStartSec={_LONGEST}",
            f"StandardOutput=truncate:{output}",
            f"ExecStart={' '.join(map(_quoted, [*self.command[:3], *words]))}",
        ]
        return "\n".join([f"[Unit]\nDescription=What {NAME} would see\n[Service]", *lines, ""])

    def _credentials(self) -> list[tuple[str, str]]:
        """Return the ids of credentials, each with the file that it is loaded from."""
        lines = [value for key, value in self.assignments if key == "LoadCredential"]
        return [(name, source) for name, _, source in (line.partition(":") for line in lines)]

    def _taken(self) -> Iterator[tuple[str, str]]:
        for key, value in self.assignments:
            if not key.startswith(_NOT_TAKEN):
                yield key, value


def unit_of(config: Path | None) -> Unit | None:
    """Return the unit that runs a configuration, or None where systemd has none.

    None, too, for whoever is not root: nobody else may run something as the service would be.
    """
    if os.geteuid() or not _UNITS.is_dir() or not shutil.which("systemctl"):
        return None
    unit = parse_unit(_systemctl("cat", f"{NAME}.service"))
    return unit if unit.runs(config) else None


def parse_unit(text: str) -> Unit:
    """Return the unit that `systemctl cat` shows, with its drop-ins (systemd.syntax(7)).

    An empty assignment of a list begins it anew.
    """
    found: list[tuple[str, str]] = []
    section, before = "", ""
    for line in text.splitlines():
        if line.lstrip().startswith(("#", ";")):
            continue
        whole = before + line.strip()
        if whole.endswith("\\"):
            before = whole[:-1] + " "
            continue
        before = ""
        if whole.startswith("[") and whole.endswith("]"):
            section = whole[1:-1]
            continue
        key, equals, value = (part.strip() for part in whole.partition("="))
        if section != "Service" or not equals:
            continue
        if not value and key in ("ExecStart", "LoadCredential"):
            found = [each for each in found if each[0] != key]
        else:
            found.append((key, value))
    return Unit(tuple(found))


def _systemctl(*words: str) -> str:
    """Run systemctl(1); return what it printed, whatever its exit status."""
    done = subprocess.run(  # noqa: S603 - no shell, and the words are ours
        [shutil.which("systemctl") or "systemctl", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LONGEST + 60,
        check=False,
    )
    return done.stdout


def _quoted(word: str) -> str:
    """Return a word of a command line as a unit has it (systemd.service(5), "Command lines")."""
    for special, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(special, escaped)
    return f'"{word}"'


def _content(file: Path) -> bytes | None:
    """Return what is in a file, or None where it cannot be read, or is no credential."""
    try:
        if not file.is_file():
            return None
        with file.open("rb") as opened:
            return opened.read(_LARGEST)
    except OSError:
        return None
