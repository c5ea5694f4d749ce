"""`make demo`, as README.md says it."""

from __future__ import annotations

from tests.e2e.command import CHECKOUT, run


def test_demo() -> None:
    """A signed webhook gives a template, which lies where the demonstration says."""
    *_, template, volume = run("make", "--no-print-directory", "demo", cwd=CHECKOUT).splitlines()
    path = template.split()[4]
    assert (CHECKOUT / path).is_file()
    assert volume == f"5 its volume id is local:vztmpl/{path.rpartition('/')[2]}"
