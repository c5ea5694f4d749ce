"""Writes the manual page and the shell completions into the folder that is named.

Both come from the commands themselves, so neither can tell of an option that is not there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer.main
from typer.completion import get_completion_script

from syncd import __version__
from syncd.cli.commands import app

_SHELLS = {"bash": "syncd.bash", "zsh": "_syncd", "fish": "syncd.fish"}

_HEAD = r"""
.TH SYNCD 1 "" "syncd {version}" "User Commands"
.SH NAME
syncd \- keeps Proxmox VE's template storage in step with a container registry
.SH SYNOPSIS
.B syncd
[\fB\-\-config\fR \fIFILE\fR] \fICOMMAND\fR [\fIARGUMENT\fR]...
.SH DESCRIPTION
The daemon takes the package webhooks of a container registry, runs a weekly schedule, and obeys
signals and HTTP. It pulls an image, flattens it into one template, and publishes that in the
storage of a Proxmox VE cluster. The other commands do the same work once, or tell about it.
"""

_TAIL = r"""
.SH FILES
.TP
.I /etc/syncd/syncd.toml
The configuration; every key is in /usr/share/doc/syncd/examples/syncd.toml.
.TP
.I /var/lib/syncd
The ledger and the cache.
.SH SIGNALS
.TP
.B SIGUSR1
Sync everything watched now.
.TP
.B SIGHUP
Reload the configuration; a bad one is rejected, and the old one stays.
.TP
.B SIGTERM
Stop within 20 seconds; what was under way is resumed at the next start.
.SH EXIT STATUS
0 done, 1 failed, 2 wrong usage or configuration.
"""


def manual() -> str:
    """Return the manual page, in the macros of man(7)."""
    group = typer.main.get_command(app)
    commands: dict[str, Any] = getattr(group, "commands", {})
    parts = [_HEAD.strip().format(version=_escaped(__version__))]
    parts += [".SH OPTIONS", *_options(group), ".SH COMMANDS"]
    for name, command in commands.items():
        operands = " ".join(
            parameter.metavar or parameter.name.upper()
            for parameter in command.params
            if parameter.param_type_name == "argument"
        )
        parts += [f".SS {_escaped(f'{name} {operands}'.strip())}", _escaped(command.help or "")]
        parts += _options(command)
    return "\n".join([*parts, _TAIL.strip(), ""])


def _options(command: Any) -> list[str]:
    lines = []
    for parameter in command.params:
        if parameter.param_type_name == "option" and not parameter.hidden:
            names = ", ".join([*parameter.opts, *parameter.secondary_opts])
            lines += [".TP", f".B {_escaped(names)}", _escaped(parameter.help or "See above.")]
    return lines


def _escaped(text: str) -> str:
    """Return text that troff takes as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def main() -> None:
    """Write the files."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "syncd.1").write_text(manual())
    for shell, name in _SHELLS.items():
        script = get_completion_script(
            prog_name="syncd", complete_var="_SYNCD_COMPLETE", shell=shell
        )
        (folder / name).write_text(f"{script}\n")


if __name__ == "__main__":
    main()
