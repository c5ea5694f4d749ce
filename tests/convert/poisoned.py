"""Processes of conversions that go wrong: `ConversionProcesses` and `ForkServer` are tried so.

Each function here is the `main` of a process.  Those that convert go wrong with an image of the
user `poison` only, after they read a layer and wrote a part of the template.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from syncd.convert.capacity import Share
from syncd.convert.conversion_process import convert_with
from syncd.convert.options import Options
from syncd.convert.pipeline import attempt
from syncd.convert.written_template import WrittenTemplate
from syncd.oci import OpenedImage
from tests.processes import MARK

_PR_GET_DUMPABLE = 3  # linux/prctl.h

NONSENSE: dict[str, bytes] = {
    "no JSON": b"hello\n",
    "no object": b"[]\n",
    "no end": b"a" * (1 << 20),
    "nested": b"[" * 100_000 + b"\n",
    "unknown": b'{"say":"something"}\n',
    "no such layer": b'{"say":"open","id":1,"end":2,"layer":7}\n',
    "negative layer": b'{"say":"open","id":1,"end":2,"layer":-1}\n',
    "mistrust of nothing": b'{"say":"mistrust","id":1}\n',
    "mistrust of another image": b'{"say":"mistrust","id":1,"layer":7}\n',
    "vouching for another image": b'{"say":"vouch","layer":7}\n',
    "no ranges": b'{"say":"open","id":1,"end":2,"layer":0,"ranges":[]}\n',
    "odd ranges": b'{"say":"open","id":1,"end":2,"layer":0,"ranges":[[0]]}\n',
    "ranges of text": b'{"say":"open","id":1,"end":2,"layer":0,"ranges":[["0",1]]}\n',
    "range beyond": b'{"say":"open","id":1,"end":2,"layer":0,"ranges":[[0,99999999]]}\n',
    "empty range": b'{"say":"open","id":1,"end":2,"layer":0,"ranges":[[0,0]]}\n',
    "ranges descending": b'{"say":"open","id":1,"end":2,"layer":0,"ranges":[[9,1],[0,1]]}\n',
    "many ranges": b'{"say":"open","id":1,"end":2,"layer":0,"ranges":[%b]}\n'
    % b",".join(b"[%d,1]" % nth for nth in range(1001)),
    "foreign step": b'{"say":"advance","id":77,"amount":1}\n',
    "steps": b"".join(
        b'{"say":"begin","id":%d,"step":"s","subject":"x","total":null}\n' % nth
        for nth in range(1000)
    ),
    "memory of others": b'{"say":"hold","id":0,"amount":-999999999}\n',
    "room of others": b'{"say":"write","id":0,"amount":-1}\n',
    "place of others": b'{"say":"rest"}\n' * 2,
    "large number": b'{"say":"hold","id":1,"amount":1e300}\n',
    "control characters": b'{"say":"begin","id":1,"step":"a\\u001b[2J","subject":"x"}\n',
    "no result": b'{"say":"done","size":1}\n',
    "no digest": b'{"say":"done","size":1,"plain_size":1,"digest":"x","warnings":[],'
    b'"is_suitable":true}\n',
    "places": b"".join(b'{"say":"work","id":%d}\n' % nth for nth in range(100)),
    "layers": b"".join(b'{"say":"open","id":%d,"end":0,"layer":0}\n' % nth for nth in range(100)),
    "unknown error": b'{"say":"failed","error":{"type":"StoppedError","what":"a","hint":""}}\n',
    "no error": b'{"say":"failed"}\n',
}
"""What no process of a conversion says, by what is wrong with it."""


def _for_poison(act: Callable[[Path], None], connection: socket.socket) -> None:
    """Convert; with a poisoned image, act in the middle of the work."""

    def poisoned(
        image: OpenedImage, output: Path, options: Options, share: Share
    ) -> WrittenTemplate:
        if image.image.runtime.get("User") != "poison":
            return attempt(image, output, options, share)
        share.hold(1 << 20)
        share.take_place(lambda: None)
        image.open_layer(image.image.layers[0].descriptor).read(100)
        output.write_bytes(b"half a template")
        act(output)
        raise AssertionError("it went on")

    convert_with(poisoned, connection)


def killed(connection: socket.socket) -> None:
    """Die by SIGKILL."""
    _for_poison(lambda _: os.kill(os.getpid(), signal.SIGKILL), connection)


def crashed(connection: socket.socket) -> None:
    """Die as a library that writes where it may not."""
    _for_poison(lambda _: os.kill(os.getpid(), signal.SIGSEGV), connection)


def ended(connection: socket.socket) -> None:
    """End without a result."""
    _for_poison(lambda _: os._exit(3), connection)


def hungry(connection: socket.socket) -> None:
    """Take all memory that there is, and use it."""

    def eat(_: Path) -> None:
        eaten = []
        while True:
            eaten.append(b"1" * (8 << 20))

    _for_poison(eat, connection)


def hanging(connection: socket.socket) -> None:
    """Do nothing for ever, which a file beside the template tells of."""

    def hang(output: Path) -> None:
        _mark(output)
        threading.Event().wait()

    _for_poison(hang, connection)


def _mark(output: Path) -> None:
    """Write the id of this process beside the template, whole."""
    begun = output.with_name(f".{MARK}")
    begun.write_text(str(os.getpid()))
    begun.rename(output.with_name(MARK))


def faulty(connection: socket.socket) -> None:
    """Meet a fault in syncd itself."""

    def fail(_: Path) -> None:
        raise KeyError("a fault")

    _for_poison(fail, connection)


def threadless(connection: socket.socket) -> None:
    """Be refused a further thread, by the bound of processes."""

    def start(_: Path) -> None:
        raise RuntimeError("can't start new thread")

    _for_poison(start, connection)


def crowded(connection: socket.socket) -> None:
    """Be refused a further thread, since the memory is used up."""

    def start(_: Path) -> None:
        kept = []
        while True:
            kept.append(threading.Thread(target=threading.Event().wait, daemon=True))
            kept[-1].start()

    _for_poison(start, connection)


def talking(connection: socket.socket) -> None:
    """Say what no conversion says, which the template's name tells."""

    def talk(output: Path) -> None:
        with suppress(OSError):
            connection.sendall(NONSENSE[output.name])
        threading.Event().wait()

    _for_poison(talk, connection)


def chattering(connection: socket.socket) -> None:
    """Say what a conversion may say, for ever."""

    def chatter(output: Path) -> None:
        _mark(output)
        while True:
            connection.sendall(b'{"say":"hold","id":0,"amount":1}\n')
            connection.sendall(b'{"say":"hold","id":0,"amount":-1}\n')

    _for_poison(chatter, connection)


def telling(connection: socket.socket) -> None:
    """Tell what a process of a conversion has of the daemon."""
    descriptors = {}
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            descriptors[link.name] = str(link.readlink())
    known = {
        "environment": dict(os.environ),
        "descriptors": descriptors,
        "connection": connection.fileno(),
        "name": Path("/proc/self/comm").read_text().strip(),
        "parent": os.getppid(),
        "collected": gc.get_threshold()[0],
        "frozen": gc.get_freeze_count(),
    }
    connection.sendall(json.dumps(known).encode())


def restricted(connection: socket.socket) -> None:
    """Convert nothing, and write what the kernel lets the process do beside the template."""

    def write(output: Path) -> None:
        output.with_name("limits").write_text(
            json.dumps(
                {
                    "data": resource.getrlimit(resource.RLIMIT_DATA)[0],
                    "adjustment": int(Path("/proc/self/oom_score_adj").read_text()),
                    "dumpable": ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0),
                }
            )
        )
        os._exit(0)

    _for_poison(write, connection)


def waiting(connection: socket.socket) -> None:
    """Wait for a message, and answer it."""
    connection.sendall(b"%d" % os.getpid())
    connection.sendall(connection.recv(100))
