"""The commands, configurations and messages that README.md and docs/ show, as the tests use them.

A shell command stands in a block of `sh`.  `UNRUN` says of each block that `tests/e2e` does not run
why it cannot be run there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_NO_CONTAINER = "no double has the container that it is about"
_A_PERSON = "it asks a person; tests/cli/test_init.py types the answers"
_A_REPOSITORY = "it is about another repository; tests/test_adopt.py runs it in one"
UNRUN = {
    ("adopt.md", "cp ../syncd"): _A_REPOSITORY,
    ("adopt.md", 'name=$(basename "$neighbour")'): _A_REPOSITORY,
    ("adopt.md", "for name in agent"): _A_REPOSITORY,
    ("adopt.md", "images/docker-nodejs"): _A_REPOSITORY,
    ("README.md", "make demo"): "tests/e2e/test_demo.py runs it, and make test is what runs",
    ("README.md", "dpkg --install"): _A_PERSON,
    ("install.md", "gh attestation"): "it asks GitHub about a release",
    ("install.md", "syncd init\n"): _A_PERSON,
    ("install.md", "make install"): "tests/e2e/test_install.py runs it",
    ("install.md", "make uninstall"): "tests/e2e/test_install.py runs it",
    ("containers.md", "syncd create"): "the double has no such storages and addresses",
    ("operate.md", "syncd replace 100"): _NO_CONTAINER,
    ("operate.md", "/api/v1/events"): "it does not end; tests/web/test_event_stream.py reads it",
    ("operate.md", '{"dry_run": true}'): _NO_CONTAINER,
    ("operate.md", '"credentials"'): "tests/web/test_credentials.py does this, to a double",
    ("operate.md", '{"ref": '): "a folder makes no containers; tests/cli/test_create.py does this",
    ("proxmox.md", "pveum user add"): "there is no pveum outside of Proxmox VE",
    ("proxmox.md", "# Retention"): "there is no pveum outside of Proxmox VE",
    ("signatures.md", "cosign sign --key"): "tests/e2e/test_signatures.py does what it does",
    ("senders.md", "openssl"): "the drop-in is not there; tests/e2e/test_senders.py has it ring",
    ("reliability.md", "tests/e2e/run"): "they are end-to-end tests themselves",
    ("reliability.md", "-m pytest"): "it is a test itself, of a checkout",
}
"""Page and some words of each block that is not run, and the reason."""


class Block(NamedTuple):
    """A fenced block: its page, its language, the line of its fence, and its text."""

    page: Path
    language: str
    line: int
    text: str

    @property
    def unrun(self) -> str | None:
        """Why the block is not run; None where it is."""
        for (page, words), reason in UNRUN.items():
            if self.page.name == page and words in self.text:
                return reason
        return None


def blocks(language: str) -> list[Block]:
    """Return all blocks of a language, in the order of the pages."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [
        Block(page, language, page.read_text()[: match.start()].count("\n") + 1, match[1])
        for page in PAGES
        for match in fence.finditer(page.read_text())
    ]


def messages() -> list[str]:
    """Return the messages that the troubleshooting page says the program has."""
    page = (ROOT / "docs/troubleshoot.md").read_text().partition("## What others say")[0]
    cells = re.findall(r"^\| (.+?) \| ", page, re.MULTILINE)
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


def printed() -> Iterator[str]:
    """Yield every text of the program, with a NUL in the place of each value."""
    for file in [*(ROOT / "syncd").rglob("*.py"), ROOT / "config/debian/syncd"]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "\0"
                    for part in node.values
                )
    yield (ROOT / "config/launcher").read_text()
