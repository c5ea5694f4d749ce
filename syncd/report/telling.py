"""A round of telling: whoever has messages to get is told in a process that ends with the round.

A service that sends its answer byte by byte is never done with it, and nothing ends a thread that
waits for it: each wait for the next byte is a new one, whatever protocol the service's plugin
speaks.  So nobody is told in the daemon.  The end of the process is the deadline of all that it
does, and an answer without end costs the process its own memory.  One process tells everybody, side
by side; it is there for seconds, and takes 35 MiB.

URLs go through a pipe, and neither into an argument nor into a file.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, cast

from syncd.report import receivers
from syncd.report.receivers import Message, Receiver

_PROGRAM = """\
import json, runpy, sys
sys.path[:] = json.loads(sys.argv[1])
runpy.run_path(sys.argv[2], run_name="receivers")["serve"]()
"""


class Told(NamedTuple):
    """What came of one message for one receiver: why it was not taken, or None."""

    position: int
    number: int
    fault: str | None


async def told(
    errands: Sequence[tuple[Receiver, Sequence[Message]]], patience: float
) -> list[Told]:
    """Tell receivers their messages, each in order up to its first failure; return what came of it.

    The round ends once everybody is done, or once nobody has been done with a message for
    `patience` seconds; who is not done by then hangs, and is cut off.
    """
    left = {receiver.position: [*messages] for receiver, messages in errands if messages}
    ends: list[Told] = []
    reason = f"gave no answer within {patience:g} s"
    try:
        async with _process() as (asked, said):
            everything = [[receiver.position, receiver.url, ms] for receiver, ms in errands]
            asked.write(json.dumps(everything).encode() + b"\n")
            while left:
                async with asyncio.timeout(patience):
                    line = await said.readline()
                ends.append(end := Told(*json.loads(line)))
                left[end.position].pop(0)
                if end.fault is not None or not left[end.position]:
                    del left[end.position]
    except TimeoutError:
        pass
    except (OSError, ValueError) as exc:  # it cannot be started, or died: there is no line
        reason = f"was not told: the process that tells failed ({type(exc).__name__})"
    hanging = (Told(at, messages[0].number, f"URL {at} {reason}") for at, messages in left.items())
    return [*ends, *hanging]


@asynccontextmanager
async def _process() -> AsyncIterator[tuple[asyncio.StreamWriter, asyncio.StreamReader]]:
    """Lend the input and the output of a process that tells; it is gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _PROGRAM, json.dumps(sys.path), receivers.__file__),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,  # a plugin's fault may hold a URL
    )
    try:
        yield (
            cast("asyncio.StreamWriter", process.stdin),
            cast("asyncio.StreamReader", process.stdout),
        )
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
