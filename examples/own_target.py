"""A target of one's own: a folder that only a shell reaches, for instance through SSH.

    python examples/own_target.py debian:13 /var/lib/vz/template/cache ssh root@pve1

converts an image and publishes the template into that folder of the host.  Without a command at
the end the shell is `sh -c`, so the folder is one of this machine.

The class fulfils `syncd.targets.Target`: its methods' docstrings say what a caller may rely on.
"""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import syncd
from syncd.errors import PublishError
from syncd.formats import Format
from syncd.oci import Digest
from syncd.progress import Progress, Silence
from syncd.targets import CheckResult, Target, Volume


class ShellTarget:
    """Publishes into a folder through a shell that takes its script as the last argument."""

    def __init__(self, name: str, folder: str, shell: Sequence[str] = ("sh", "-c")) -> None:
        self.name = name
        self._folder = folder
        self._shell = shell

    def format(self) -> Format:
        """Return `rootfs`, which every Proxmox VE reads."""
        return Format.ROOTFS

    def volumes(self) -> list[Volume]:
        """Return every template in the folder with its size in bytes."""
        listed = self._run("find . -maxdepth 1 -type f -name '[!.]*.tar*' -printf '%s %f\\n'")
        lines = (line.split(" ", 1) for line in listed.splitlines())
        return [Volume(f"{self.name}:vztmpl/{name}", int(size)) for size, name in lines]

    def missing(self, name: str, size: int | None) -> list[str]:
        """Return the target's own name when it lacks the file, else nothing."""
        found = any(one.name == name and size in (None, one.size) for one in self.volumes())
        return [] if found else [self.name]

    def local(self, name: str) -> Path | None:  # noqa: ARG002 - a method of the protocol
        """Return None: this machine need not reach the folder."""
        return None

    def publish(self, file: Path, name: str, digest: Digest, progress: Progress) -> list[Volume]:
        """Ensure that the folder lists `file` as `name`; never overwrite another file.

        The bytes arrive under a hidden name that no listing shows, and are verified there.
        """
        size = file.stat().st_size
        advance = progress.begin("publish", name, size)
        if self.missing(name, size):
            final, part = shlex.quote(name), shlex.quote(f".{name}.part")
            script = (
                f"cat >{part} && echo '{digest.encoded}  '{part} | sha256sum --check --status"
                f" && ln {part} {final} && sync {final}; code=$?; rm -f {part}; exit $code"
            )
            with file.open("rb") as content:
                self._run(script, content)
        advance(size)
        return [Volume(f"{self.name}:vztmpl/{name}", size)]

    def remove_part(self, name: str) -> bool:  # noqa: ARG002 - a method of the protocol
        """Return False: the next publication writes over a hidden file that was left."""
        return False

    def delete(self, volume: Volume) -> None:
        """Ensure that the file is gone."""
        self._run(f"rm -f -- {shlex.quote(volume.name)}")

    def check(self) -> list[CheckResult]:
        """Tell whether templates can be written into the folder."""
        try:
            self._run("test -w .")
        except PublishError as exc:
            return [CheckResult(False, f"target {self.name}", str(exc))]
        return [CheckResult(True, f"target {self.name}", f"{self._folder} can be written")]

    def _run(self, script: str, content: BinaryIO | None = None) -> str:
        """Run a script in the folder; return what it prints, and raise PublishError."""
        try:
            done = subprocess.run(
                [*self._shell, f"cd {shlex.quote(self._folder)} && {{ {script}; }}"],
                stdin=content or subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as exc:
            raise PublishError(f"{self._shell[0]} cannot be run: {exc.strerror}") from exc
        if done.returncode:
            why = done.stderr.strip() or f"exit code {done.returncode}"
            raise PublishError(f"{self._folder} of {self.name}: {why}")
        return done.stdout


def main(source: str, folder: str, *shell: str) -> None:
    """Convert the image, publish the template, and print its volume id."""
    target: Target = ShellTarget("own", folder, shell or ("sh", "-c"))
    opened = syncd.open_image(source)
    # The name carries the image's digest, so that two images never have the same name.
    name = f"{opened.image.config_digest.encoded[:12]}{target.format().suffix}"
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / name
        done = syncd.flatten(opened, file, format=target.format())
        for volume in target.publish(file, name, done.digest, Silence()):
            print(f"{volume.volid} {volume.size}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except syncd.SyncdError as exc:
        sys.exit(f"error: {exc}")
