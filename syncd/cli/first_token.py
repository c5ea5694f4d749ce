"""The API token of a first configuration: the commands that make it, and its secret.

The secret is printed once, by the command that makes the token.  It is never shown here, and goes
into a file of its own.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from syncd.cli import console
from syncd.cli.first_target import TargetOptions
from syncd.cli.questions import Questions, read_secret
from syncd.targets.proxmox import on_a_node

_PATIENCE = 60.0  # seconds that one command of pveum may take


def token_secret(questions: Questions, options: TargetOptions, commands: Sequence[str]) -> str:
    """Return the token's secret: of the file, of `pveum`, or as it is typed; else nothing."""
    console.say("\nOn a node of the cluster, as root, these make the token and what it may do:\n")
    for command in commands:
        console.say(f"    {command}")
    console.say("")
    if options.token_secret_file is not None:
        return read_secret(options.token_secret_file, "--token-secret-file")
    here = on_a_node() and shutil.which("pveum") is not None
    if here and questions.agree("Run them here now?", options.grant, default=questions.asking):
        return _run(commands) or questions.secret("The token's secret (not shown)")
    return questions.secret("The token's secret, which the second one prints (not shown)")


def _run(commands: Sequence[str]) -> str:
    """Run the commands; return the secret of the token, empty if it was not made.

    A user or role that exists already is as good: the name of a role tells its privileges.
    """
    secret = ""
    for command in commands:
        words = shlex.split(command)
        makes_token = words[:4] == ["pveum", "user", "token", "add"]
        done = subprocess.run(  # noqa: S603 - no shell, and our own words
            [*words, "--output-format", "json"] if makes_token else words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode and (makes_token or "already exists" not in done.stderr):
            console.complain(f"  {command}\n  {done.stderr.strip()}")
        elif makes_token:
            secret = _value(done.stdout)
    return secret


def _value(printed: str) -> str:
    """Return the secret that `pveum user token add` printed as JSON; empty if it is not there."""
    try:
        answer = json.loads(printed)
    except ValueError:
        return ""
    return str(answer.get("value", "")) if isinstance(answer, dict) else ""
