"""What `logs` promises: lines that fit where they are read, and no secret in a traceback."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
from collections.abc import Iterator

import pytest
import structlog

from syncd.cli.logs import set_up_logs


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """Put logging back as it was."""
    handlers, ours = logging.root.handlers[:], logging.getLogger("syncd").level
    raising = logging.raiseExceptions
    yield
    logging.raiseExceptions = raising
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.getLogger("syncd").setLevel(ours)
    logging.getLogger("urllib3").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("form", "under_systemd", "expected"),
    [
        ("journal", False, ["<6>published volume=local:vztmpl/v job=42", "<4>trouble"]),
        ("auto", True, ["<6>published volume=local:vztmpl/v job=42", "<4>trouble"]),
        ("auto", False, None),
        ("console", True, None),
    ],
)
def test_lines(
    form: str,
    under_systemd: bool,
    expected: list[str] | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An event is told with its values, to the journal with its priority; libraries only warn."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if under_systemd:
        monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    set_up_logs(form)
    with structlog.contextvars.bound_contextvars(job="42"):
        structlog.stdlib.get_logger("syncd.test").info("published", volume="local:vztmpl/v")
    logging.getLogger("library").info("chatter")
    logging.getLogger("library").warning("trouble")
    logging.getLogger("urllib3.connectionpool").warning("another attempt")
    lines = capsys.readouterr().err.splitlines()
    if expected:
        assert lines == expected
    else:
        assert "published" in lines[0]
        assert "42" in lines[0]
        assert "trouble" in lines[1]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A machine reads one JSON object a line."""
    set_up_logs("json")
    structlog.stdlib.get_logger("syncd.test").info("published", volume="v")
    logging.getLogger("library").warning("trouble")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["level"], first["volume"]) == ("published", "info", "v")
    assert second["event"] == "trouble"


class Full(io.StringIO):
    """A file on a disk that is full."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that cannot be written is lost, without a traceback about it."""
    set_up_logs("json")
    (handler,) = logging.root.handlers
    assert isinstance(handler, logging.StreamHandler)
    with monkeypatch.context() as patched:
        patched.setattr(handler, "stream", Full())
        structlog.stdlib.get_logger("syncd.test").error("lost")
    structlog.stdlib.get_logger("syncd.test").error("written")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == [
        "written"
    ]


def test_no_event_is_forged(capsys: pytest.CaptureFixture[str]) -> None:
    """A value with line ends stays within its quotes; further lines of an event are indented."""
    set_up_logs("journal")
    structlog.stdlib.get_logger("syncd.test").info("published", volumes=("a:b", "c d"))
    structlog.stdlib.get_logger("syncd.test").warning("failed", reason='a "b"\n<6>published\x1b[m')
    logging.getLogger("library").error("first\npublished")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        '<6>published volumes="a:b, c d"',
        '<4>failed reason="a \\"b\\"\\n<6>published\\u001b[m"',
        "<3>first",
        "<3>  published",
    ]


@pytest.mark.parametrize("form", ["json", "console", "journal"])
def test_tracebacks_show_no_secret(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault's traceback names its lines, and never what the variables hold."""
    set_up_logs(form)
    password = "hunter" + str(1 + 1)
    try:
        raise ValueError("oops")
    except ValueError:
        structlog.stdlib.get_logger("syncd.test").exception("fault in syncd")
    told = capsys.readouterr().err
    assert "ValueError: oops" in told
    assert password not in told
