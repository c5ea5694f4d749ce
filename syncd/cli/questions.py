"""What a person is asked: one question at a time, each answer checked before the next question.

An answer is the option's, if there is one, else what is typed at the terminal.  What is typed
wrongly is asked again, with the reason; a wrong option ends the command.  Where nobody sits at a
terminal nothing is asked: the default counts, and a question without a default names the option
that is missing.

The questions go to standard error, so that what the command tells can be kept in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import typer

from syncd.cli import console
from syncd.errors import SyncdError, why_unread

T = TypeVar("T")

Parse = Callable[[str], T]
"""Turns the text of an answer into its value; raises ValueError or SyncdError for a wrong one."""


class Questions:
    """The questions of one command; `asking` tells whether somebody is there to answer."""

    def __init__(self, *, asking: bool) -> None:
        self.asking = asking

    def answer(
        self,
        question: str,
        option: str,
        parse: Parse[T],
        given: str | None = None,
        default: str | None = None,
    ) -> T:
        """Return an answer, parsed.

        Raise BadParameter for a wrong option, and where nobody is asked and there is no default.
        """
        if given is None and not self.asking:
            given = default
            if given is None:
                raise typer.BadParameter("is needed, since nobody is asked", param_hint=option)
        if given is not None:
            try:
                return parse(given)
            except (ValueError, SyncdError) as exc:
                raise typer.BadParameter(str(exc), param_hint=option) from exc
        while True:
            text: str = typer.prompt(
                question, default=default, err=True, show_default=bool(default)
            )
            try:
                return parse(text.strip())
            except (ValueError, SyncdError) as exc:
                console.complain(f"  {exc}")

    def several(
        self,
        question: str,
        option: str,
        parse: Parse[T],
        given: Sequence[str] = (),
        default: Sequence[str] = (),
    ) -> list[T]:
        """Return at least one answer; those that are typed stand in one line, parted by blanks."""

        def each(text: str) -> list[T]:
            words = text.split()
            if not words:
                raise ValueError("at least one is needed")
            return [parse(word) for word in words]

        if given:
            return [self.answer(question, option, parse, one) for one in given]
        return self.answer(question, option, each, default=" ".join(default) or None)

    def agree(self, question: str, given: bool | None, *, default: bool) -> bool:
        """Return whether the answer is yes."""
        if given is not None or not self.asking:
            return default if given is None else given
        return typer.confirm(question, default=default, err=True)

    def secret(self, question: str) -> str:
        """Return what is typed unseen, empty for nothing; empty where nobody is asked."""
        if not self.asking:
            return ""
        typed: str = typer.prompt(
            question, default="", hide_input=True, show_default=False, err=True
        )
        return typed.strip()


def read_secret(file: Path, option: str) -> str:
    """Return the secret in a file that an option names; raise BadParameter where there is none."""
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise typer.BadParameter(
            f"{file} cannot be read: {why_unread(exc)}", param_hint=option
        ) from exc
    if not secret:
        raise typer.BadParameter(f"{file} is empty", param_hint=option)
    return secret
