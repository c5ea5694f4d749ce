"""What README.md and docs/ show can be typed, can be configured, and is what the program prints.

The commands themselves are run on a booted machine, by `tests/e2e/test_documents.py`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main

from syncd.cli.commands import app
from syncd.config.load import parse_config
from tests.documents import PAGES, UNRUN, Block, blocks, messages, printed

PRINTED = [*printed()]
TARGET = '[[target]]\nname = "cluster"\ntype = "directory"\npath = "/x"\n'


def name(block: Block) -> str:
    return f"{block.page.name}:{block.line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_marked(page: Path) -> None:
    """Code stands in blocks that say what it is."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"\n\n    \S", text)
    assert not re.search(r"^```\n(?=.*\n```)", page.read_text())


@pytest.mark.parametrize("block", blocks("sh"), ids=name)
def test_shell(block: Block) -> None:
    """Every block of commands is one that a shell reads."""
    done = subprocess.run(["sh", "-n"], input=block.text.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_reasons() -> None:
    """Each reason not to run a block is about a block that is there."""
    found = [
        (page, words)
        for page, words in UNRUN
        for block in blocks("sh")
        if block.page.name == page and words in block.text
    ]
    assert sorted(set(found)) == sorted(UNRUN)


def typed() -> list[tuple[str, list[str]]]:
    """Return every `syncd` command of the blocks, with where it stands."""
    return [
        (name(block), words[1:])
        for block in blocks("sh")
        for line in block.text.replace("\\\n", " ").splitlines()
        for words in commands(line)
        if words[:1] == ["syncd"]
    ]


def commands(line: str) -> list[list[str]]:
    """Return the words of each command of a line, which may be joined by pipes and the like."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;"):
            found.append([])
        else:
            found[-1].append(word)
    return found


@pytest.mark.parametrize(("place", "words"), typed(), ids=str)
def test_options(
    place: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every option and argument of a `syncd` that is shown is one that its command has."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519.pub").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    words = [os.path.expanduser(word) for word in words]  # noqa: PTH111 - most are no paths
    command: Any = typer.main.get_command(app)
    with command.make_context("syncd", list(words)) as context:
        sub, subcommand, rest = command.resolve_command(context, words)
        with subcommand.make_context(sub, rest, parent=context):
            pass


@pytest.mark.parametrize("block", blocks("toml"), ids=name)
def test_configuration(block: Block) -> None:
    """Every configuration that is shown is taken; pieces are completed by a target."""
    named = [target["name"] for target in tomllib.loads(block.text).get("target", ())]
    parse_config(block.text + ("" if named else f"\n{TARGET}"), Path("shown.toml"))


@pytest.mark.parametrize("message", messages())
def test_message(message: str) -> None:
    """Every message that the troubleshooting page names is one that the program prints."""
    pattern = ".*".join(re.escape(part) for part in message.split("…"))
    assert any(re.search(pattern, text, re.DOTALL) for text in PRINTED), message


def test_a_message_that_nobody_prints() -> None:
    """The test before this one would notice a message that is not printed."""
    assert len(messages()) > 40
    assert not any(re.search("the moon is .* today", text) for text in PRINTED)
