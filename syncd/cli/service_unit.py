"""The systemd service as `syncd init` finds and completes it: by a drop-in, and by a start.

The unit as shipped may write below its state directory only, and is handed two secrets.  What a
configuration needs beyond that stands in one drop-in, `init.conf`, which each `init` writes anew;
drop-ins of other names are the administrator's and are left alone.
"""

from __future__ import annotations

import grp
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from syncd.cli.first_files import NewFile, write
from syncd.config import DEFAULT_PATH
from syncd.errors import StorageError
from syncd.files import make_folder

_UNITS = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
_SHIPPED = ("webhook-secret", "api-token")
"""The secrets that the unit itself hands over."""
_GROUP = "syncd"
_PATIENCE = 120.0  # seconds in which the service is ready


@dataclass(frozen=True, slots=True)
class ServiceUnit:
    """The service of a host whose file system is `root`."""

    root: Path = Path("/")

    def reads(self, config: Path) -> bool:
        """Tell whether the service is installed, and this is its configuration."""
        return self._is_installed and config == DEFAULT_PATH

    def obstacle(self, config: Path) -> str:
        """Return why the service cannot be started with this configuration; empty if it can."""
        if not self._is_installed:
            return "the service is not installed here"
        if config != DEFAULT_PATH:
            return f"the service reads {DEFAULT_PATH}, not {config}"
        if not (self.root / "run/systemd/system").is_dir():  # sd_booted(3)
            return "systemd does not run this host"
        return ""

    @property
    def _is_installed(self) -> bool:
        return any((self.root / folder / "syncd.service").exists() for folder in _UNITS)

    @property
    def drop_in(self) -> Path:
        """Where the drop-in is."""
        return self.root / "etc/systemd/system/syncd.service.d/init.conf"

    def complete(self, folder: Path | None, secrets: Iterable[Path]) -> list[Path]:
        """Ensure that the service may publish and is handed its secrets; see `drop_in_text`.

        `folder` has the layout of a storage; its folder of templates is made if it is missing,
        since the service would not start.  Return the files that were written; raise StorageError.
        """
        templates = folder / "template" / "cache" if folder is not None else None
        try:
            if templates is not None:
                make_folder(templates)
            text = drop_in_text(templates, secrets)
            if not text:
                self.drop_in.unlink(missing_ok=True)
                return []
            make_folder(self.drop_in.parent)
        except OSError as exc:
            raise StorageError(f"{exc.filename} cannot be written: {exc.strerror}") from exc
        write(NewFile(self.drop_in, text))
        return [self.drop_in]

    def start(self) -> None:
        """Ensure that the service runs with what was written; raise StorageError if it does not."""
        for words in (
            ("daemon-reload",),
            ("enable", "--quiet", "syncd.socket", "syncd.service"),
            ("restart", "syncd.service"),
        ):
            done = subprocess.run(  # noqa: S603 - no shell, and our own words
                ["systemctl", *words],  # noqa: S607 - where PATH has it
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
            if done.returncode:
                raise StorageError(
                    f"systemctl {' '.join(words)} failed: {done.stderr.strip()}",
                    "see journalctl -u syncd",
                )


def drop_in_text(folder: Path | None, secrets: Iterable[Path]) -> str:
    """Return what the drop-in says; empty where the unit as shipped is enough.

    `folder` is the folder of templates, or None for a cluster.  `secrets` are files that the
    service reads; those that the unit hands over itself are left out.
    """
    lines = []
    if folder is not None:
        lines += [
            "# The owner of the templates' folder publishes, and may write there.",
            "DynamicUser=no",
            f"User={_owner(folder)}",
            *([f"Group={_GROUP}"] if _has_group() else []),
            f"ReadWritePaths={_escaped(folder)}",
        ]
    handed = [secret for secret in secrets if secret.name not in _SHIPPED]
    if handed:
        lines.append("# Only root can read these files: systemd hands them over.")
        lines += [f"LoadCredential={secret.name}:{secret}" for secret in handed]
    return "\n".join(["# Written by syncd init.", "[Service]", *lines, ""]) if lines else ""


def _has_group() -> bool:
    """Tell whether this host has the group whose members may ask the daemon."""
    try:
        grp.getgrnam(_GROUP)
    except KeyError:
        return False
    return True


def _owner(folder: Path) -> str:
    try:
        return folder.owner()
    except KeyError:
        return str(folder.stat().st_uid)


def _escaped(path: Path) -> str:
    """Return a path as ReadWritePaths= takes it: systemd.unit(5), specifiers, and quotes."""
    text = str(path).replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"')
    return f'"{text}"' if " " in text else text
