"""What a process that was forked for one conversion does: convert, and tell the daemon how it went.

The process has no registry, no credentials and no other image's files: the bytes of layers come
from the daemon through pipes, and of the memory and the disk that all conversions share the daemon
gives it parts.  The kernel bounds what it allocates all the same, kills it first where memory runs
out, and lets no other process look into it.

Source: getrlimit(2), RLIMIT_DATA; proc_pid_oom_score_adj(5); prctl(2), PR_SET_DUMPABLE.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import pickle
import resource
import socket
import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from syncd.convert.capacity import Alive, Share
from syncd.convert.channel import Channel, Message, error_message, error_of
from syncd.convert.heap import share_one_heap
from syncd.convert.layer_pipe import PipedLayer
from syncd.convert.options import Options
from syncd.convert.pipeline import Attempt, attempt
from syncd.convert.written_message import message_of
from syncd.errors import NoProcessError, SyncdError
from syncd.limits import Bound
from syncd.oci import Descriptor, Image, OpenedImage, Range
from syncd.progress import Advance

UNCOUNTED = 64 << 20
"""Bytes that a process may allocate beyond `limits.memory`: stacks of threads, what the allocator
wastes, and what the estimates are wrong by; docs/reliability.md has the measurements."""
_STACK = 1 << 20  # bytes of address space of a thread, which count as allocated (RLIMIT_DATA)
_STEP = 4 << 20  # bytes of memory that are asked for at a time
_WRITE_STEP = 16 << 20  # bytes of disk that are asked for at a time
_TOLD = 1 << 20  # bytes done that are worth a message
_KILLED_FIRST = "1000"  # proc_pid_oom_score_adj(5)
_PR_SET_DUMPABLE = 4  # linux/prctl.h
_LONGEST = 4_000  # characters of an error that are told
_NO_THREAD = NoProcessError(
    "no thread can be started to convert with",
    "check the number of processes (TasksMax) of the service",
)


class Job(NamedTuple):
    """What a process gets: the image, the file to write, and the options of the conversion.

    The options have neither capacity nor progress, which stay in the daemon.
    """

    image: Image
    output: Path
    options: Options
    ranges: bool
    """Whether ranges of layers may be asked for."""


def run(connection: socket.socket) -> None:
    """Convert the image of the job that comes through `connection`."""
    convert_with(attempt, connection)


def convert_with(act: Attempt, connection: socket.socket) -> None:
    """Do as `run` does; `act` converts."""
    channel = Channel(connection, trusts=True)
    try:
        job: Job = pickle.loads(channel.receive_content())  # noqa: S301 - the daemon is trusted
    except EOFError:
        return  # the daemon has no use for this process any more
    _restrict(job.options.limits.memory)
    daemon = _Daemon(channel)
    layers = _Layers(daemon, job.image)
    ranges = layers.open_ranges if job.ranges else None
    opened = OpenedImage(job.image, layers.open, ranges, layers.mistrust, layers.vouch)
    progress = _Progress(daemon)
    scratch = job.options.scratch.counted_by(_Lease(daemon, "write", _WRITE_STEP).hold)
    options = replace(job.options, scratch=scratch, progress=progress)
    try:
        written = act(opened, job.output, options, _LeasedShare(daemon))
    except SyncdError as exc:
        channel.send({"say": "failed", "error": error_message(exc)})
    except Exception as exc:  # noqa: BLE001 - told to the daemon
        if _is_shortage(exc):
            channel.send({"say": "short"})
        elif _is_thread(exc):
            channel.send({"say": "failed", "error": error_message(_NO_THREAD)})
        else:
            traceback.print_exc()
            channel.send({"say": "fault", "error": repr(exc)[:_LONGEST]})
    else:
        progress.tell_rest()
        channel.send({"say": "done", **message_of(written)})


def _restrict(memory: Bound) -> None:
    """Have the kernel bound this process, and kill it before the others where memory runs out."""
    share_one_heap()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_KILLED_FIRST)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    threading.stack_size(_STACK)
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    most = pages * resource.getpagesize() + memory.maximum + UNCOUNTED
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _is_shortage(exc: Exception) -> bool:
    """Tell whether an error is for lack of memory; zstandard has words of its own."""
    if isinstance(exc, MemoryError) or "not enough memory" in str(exc):
        return True
    return _is_thread(exc) and _memory_left() < 2 * _STACK


def _is_thread(exc: Exception) -> bool:
    """Tell whether an error is that no thread starts: for lack of memory, or of processes."""
    return isinstance(exc, RuntimeError) and "start new thread" in str(exc)


def _memory_left() -> int:
    """Return how many bytes more this process may allocate (proc(5), VmData)."""
    status = Path("/proc/self/status").read_text()
    held = int(status.partition("VmData:")[2].split()[0]) << 10
    return resource.getrlimit(resource.RLIMIT_DATA)[0] - held


class _Daemon:
    """The daemon, as the process sees it.  Safe to use from several threads."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._asked: dict[int, Future[Message]] = {}
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    def say(self, what: str, **more: object) -> None:
        """Tell the daemon something; the process ends where the daemon is gone."""
        try:
            self._channel.send({"say": what, **more})
        except OSError:
            os._exit(1)

    def number(self) -> int:
        """Return a number for something that the daemon hears of."""
        return next(self._numbers)

    def expect(self) -> tuple[int, Future[Message]]:
        """Return a number, and the answer of that number to come."""
        number, answer = self.number(), Future[Message]()
        self._asked[number] = answer
        return number, answer

    def ask(self, what: str, **more: object) -> Message:
        """Ask the daemon; return the answer, or raise the error that it is."""
        number, answer = self.expect()
        self.say(what, id=number, **more)
        return answer.result()

    def _listen(self) -> None:
        """Hand out the answers; end the process once the daemon is gone."""
        with suppress(Exception):
            while (message := self._channel.receive()) is not None:
                answer = self._asked.pop(message["id"])
                if "error" in message:
                    answer.set_exception(error_of(message["error"]))
                    continue
                if message.get("descriptor"):
                    message["descriptor"] = self._channel.descriptor()
                answer.set_result(message)
        os._exit(1)


class _Progress:
    """The progress of the conversion, heard by the daemon in large pieces."""

    def __init__(self, daemon: _Daemon) -> None:
        self._daemon = daemon
        self._untold: dict[int, int] = {}

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Tell that a step begins; return what tells how many bytes of it are done."""
        number = self._daemon.number()
        self._daemon.say("begin", id=number, step=step, subject=subject, total=total)
        self._untold[number] = 0

        def advance(amount: int) -> None:
            self._untold[number] += amount
            if self._untold[number] >= _TOLD:
                self._tell(number)

        return advance

    def tell_rest(self) -> None:
        """Tell what is done and was not told."""
        for number in self._untold:
            self._tell(number)

    def _tell(self, number: int) -> None:
        self._daemon.say("advance", id=number, amount=self._untold[number])
        self._untold[number] = 0


class _Layers:
    """The layers of the image, read by the daemon."""

    def __init__(self, daemon: _Daemon, image: Image) -> None:
        self._daemon = daemon
        self._places = {layer.descriptor: nth for nth, layer in enumerate(image.layers)}

    def open(self, wanted: Descriptor) -> PipedLayer:
        """Open a layer for one reading; raise what opening it raises in the daemon."""
        return self._open(wanted)

    def open_ranges(self, wanted: Descriptor, ranges: Sequence[Range]) -> PipedLayer:
        """Open ranges of a layer; raise what opening them raises in the daemon."""
        return self._open(wanted, ranges=ranges)

    def mistrust(self, blob: Descriptor) -> bool:
        """Tell that ranges of a layer were wrong; return whether others may give them."""
        others: bool = self._daemon.ask("mistrust", layer=self._places[blob])["others"]
        return others

    def vouch(self, blob: Descriptor) -> None:
        """Tell that ranges of a layer were right."""
        self._daemon.say("vouch", layer=self._places[blob])

    def _open(self, wanted: Descriptor, **more: object) -> PipedLayer:
        number, end = self._daemon.expect()
        opened = self._daemon.ask("open", layer=self._places[wanted], end=number, **more)
        return PipedLayer(opened["descriptor"], end)


class _Lease:
    """Bytes that the daemon gives in steps.  Safe to use from several threads.

    `say` is what the daemon is asked by.
    """

    def __init__(self, daemon: _Daemon, say: str, step: int) -> None:
        self._daemon = daemon
        self._say = say
        self._step = step
        self._lock = threading.Lock()
        self._leased = 0
        self.held = 0

    def hold(self, amount: int) -> None:
        """Hold `amount` more bytes, or fewer; raise what the daemon answers."""
        with self._lock:
            short = self.held + amount - self._leased
            if short > 0:
                self._lease(short)
            elif short < -2 * self._step and amount < 0:
                self._daemon.say(self._say, id=0, amount=short + self._step)
                self._leased += short + self._step
            self.held += amount

    def _lease(self, short: int) -> None:
        """Get at least so many bytes, and a step if there is one."""
        for wanted in (max(short, self._step), short):
            try:
                self._daemon.ask(self._say, amount=wanted)
            except SyncdError:
                if wanted == short:
                    raise
            else:
                self._leased += wanted
                return


class _LeasedShare(Share):
    """A share of the daemon's capacity, which gives memory in steps."""

    def __init__(self, daemon: _Daemon) -> None:
        super().__init__(lambda: None)
        self._daemon = daemon
        self._memory = _Lease(daemon, "hold", _STEP)
        self._placing = threading.Lock()
        self._threads = 0

    def hold(self, amount: int) -> None:
        self._memory.hold(amount)

    def take_place(self, alive: Alive) -> None:  # noqa: ARG002 - the daemon ends who is to stop
        with self._placing:
            if not self._threads:
                self._daemon.ask("work")
            self._threads += 1

    def give_place(self) -> None:
        with self._placing:
            self._threads -= 1
            if not self._threads:
                self._daemon.say("rest")
