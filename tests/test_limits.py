"""What `limits` promises: each bound is named when it is passed, and can be configured."""

from __future__ import annotations

import threading
from dataclasses import fields

import pytest

from syncd.config.settings import LimitSettings
from syncd.errors import LimitError
from syncd.limits import Allowance, Bound, Limits

BOUNDS = [field.name for field in fields(Limits)]


@pytest.mark.parametrize("bound", BOUNDS)
def test_check(bound: str) -> None:
    """A bound may be reached, not passed; the error says which and how to raise it."""
    limited: Bound = getattr(Limits(**{bound: 10}), bound)
    limited.check(10, "it")
    with pytest.raises(LimitError, match=rf"it goes beyond the bound of 10 .*limits\.{bound}"):
        limited.check(11, "it")


def test_configurable() -> None:
    """Every bound has a setting of its name, whose default is the same."""
    assert set(LimitSettings.model_fields) == {*BOUNDS, "slowest", "tags"}
    assert LimitSettings().bounds() == Limits()


def test_allowance() -> None:
    """What is taken adds up, over threads too, and the bound is passed only once it is passed."""
    allowance = Allowance(Limits(unpacked=8000).unpacked, "the size")

    def take() -> None:
        for _ in range(1000):
            allowance.take(1)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(LimitError, match=r"limits\.unpacked"):
        allowance.take(1)
