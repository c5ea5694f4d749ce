"""Answers that are kept for a few seconds, so that a sweep asks a common question once.

A sweep looks at each tag by itself, and each look asks for the nodes, the storages and the listing
anew.  Threads that ask one question at a time share one answer.  Only answers are kept, never
errors.  What syncd changes itself makes it forget at once what the change concerns, so that only
changes by others are seen late, by at most the seconds of this memory.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, TypeVar

T = TypeVar("T")
Question = tuple[str, tuple[tuple[str, object], ...]]
"""The path of a question, and its parameters."""

SECONDS = 5.0
"""How long an answer is kept."""


class Memory:
    """The answers of one cluster, by question."""

    def __init__(self) -> None:
        self._answers: dict[Question, tuple[float, Any]] = {}
        self._asking: defaultdict[Question, threading.Lock] = defaultdict(threading.Lock)
        self._under_way: dict[Question, bool] = {}  # whether the answer may be kept

    def recall(self, question: Question, ask: Callable[[], T], *, fresh: bool = False) -> T:
        """Return the answer that is kept, or ask for it, which `fresh` does in any case.

        Raise what `ask` raises.
        """
        with self._asking[question]:
            kept = None if fresh else self._answers.get(question)
            if kept is not None and time.monotonic() - kept[0] < SECONDS:
                answer: T = kept[1]
                return answer
            begun = time.monotonic()
            self._under_way[question] = True
            try:
                answer = ask()
                if self._under_way[question]:
                    self._answers[question] = begun, answer
            finally:
                del self._under_way[question]
            return answer

    def forget(self, paths: str) -> None:
        """Forget the answers about the paths of a pattern, since something was changed there.

        In a pattern, `*` stands for anything (fnmatch).  An answer that is under way may be from
        before the change, and is not kept.
        """
        for question in [*self._answers, *self._under_way]:
            if fnmatchcase(question[0], paths):
                self._answers.pop(question, None)
                if question in self._under_way:
                    self._under_way[question] = False
