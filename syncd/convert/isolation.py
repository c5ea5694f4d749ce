"""Conversions that die alone: each runs in a process of its own, which the daemon survives.

The process gets the bytes of layers through pipes, and parts of the memory that all conversions
share; the registry, its credentials and every wait stay here.  It may say that a mirror gave wrong
bytes, which keeps that one unasked for an hour at most.  Whatever becomes of the process, killed by
the kernel, out of memory, talking nonsense or silent for ever, is the error of its own job.  An
error of the conversion, or of reading a layer, is the same as it is without a process.
"""

from __future__ import annotations

import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

from syncd.convert.capacity import MEMORY, Share
from syncd.convert.channel import (
    LASTING,
    Channel,
    Message,
    NonsenseError,
    QuietError,
    error_message,
    error_of,
    number,
    ranges_of,
    text,
)
from syncd.convert.conversion_process import Job, run
from syncd.convert.fork_server import Forked, ForkServer, Main
from syncd.convert.layer_pipe import pump
from syncd.convert.options import Options
from syncd.convert.pipeline import LAYERS_AT_A_TIME, convert
from syncd.convert.written_message import written_of
from syncd.convert.written_template import WrittenTemplate
from syncd.errors import (
    ConversionDiedError,
    NoProcessError,
    StoppedError,
    SyncdError,
)
from syncd.limits import unbounded
from syncd.oci import Descriptor, OpenedImage, Reader
from syncd.progress import Advance, Silence

SILENT_MAX = 900.0
"""Seconds in which a process may neither say nor take anything while nothing keeps it waiting.  A
chunk of a layer takes milliseconds; laying 2,000,000 members over each other takes half a minute, a
last flush to a slow disk some minutes."""
PROCESS = 4 << 20
"""Bytes of memory that the process of a conversion takes for itself; measured in
docs/reliability.md."""
_LOOK = 0.25  # seconds between two looks at whether the conversion is to stop
_DEATH = 10.0  # seconds for the kernel to end a process
_WISHES = 3 * LAYERS_AT_A_TIME + 1  # layers and places that may be asked for at a time
_STEPS_OF_A_LAYER = 16  # at most: it is put together anew for each mirror, and pulled whole at last
_STEPS = 16  # steps beside those of the layers


class ConversionProcesses:
    """Converts images, each in a process of its own.  Safe to use from several threads.

    `main` is what the processes call (`ForkServer`).
    """

    def __init__(self, main: Main = run) -> None:
        self._server = ForkServer(main)

    def convert(self, image: OpenedImage, output: Path, options: Options) -> WrittenTemplate:
        """Convert an image as `syncd.convert.convert` does, and raise what that raises.

        The table is written to a file only, if the options name one.  Raise ConversionDiedError,
        too, when the process dies, and NoProcessError when there is none.
        """
        return convert(image, output, options, self._attempt)

    def close(self) -> None:
        """End the processes that still run."""
        self._server.close()

    def _attempt(
        self, image: OpenedImage, output: Path, options: Options, share: Share
    ) -> WrittenTemplate:
        share.hold(PROCESS)
        with (
            closing(self._server.fork()) as process,
            _Conversation(process, image, options, share) as conversation,
        ):
            return conversation.hold(output)


class _Conversation:
    """What the daemon and one process say, from the job to its end; then the process is gone."""

    def __init__(self, process: Forked, image: OpenedImage, options: Options, share: Share) -> None:
        self._process = process
        self._channel = Channel(process.connection)
        self._image = image
        self._options = options
        self._share = share
        self._layers = [layer.descriptor for layer in image.image.layers]
        self._steps: dict[int, Advance] = {}
        self._helpers = ThreadPoolExecutor(LAYERS_AT_A_TIME + 1, thread_name_prefix="isolation")
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._places = 0
        self._wishes = 0
        self._least = share.held
        self._written = 0
        self._waits = 0  # of the process for the daemon
        self._moved = time.monotonic()
        self._fault: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._process.kill()
        self._helpers.shutdown(cancel_futures=True)
        self._process.ended(_DEATH)
        while self._places:
            self._places -= 1
            self._share.give_place()

    def hold(self, output: Path) -> WrittenTemplate:
        """Have the image converted; return what the process says was written."""
        scratch = self._options.scratch.counted_by(unbounded)
        options = replace(self._options, scratch=scratch, capacity=None, progress=Silence())
        job = Job(self._image.image, output, options, self._image.open_ranges is not None)
        alive = self._options.progress.begin("convert", output.name, None)
        try:
            self._channel.send_content(pickle.dumps(job))
            looked = time.monotonic()
            while True:
                if time.monotonic() - looked >= _LOOK:
                    alive(0)
                    self._look_for_a_move()
                    looked = time.monotonic()
                try:
                    message = self._channel.receive(_LOOK)
                except QuietError:
                    continue
                if message is None:
                    raise self._died()
                self._moved = time.monotonic()
                written = self._hear(message)
                if written is not None:
                    return written
        except TimeoutError as exc:
            raise self._death("was ended, since it takes no answers any more") from exc
        except OSError as exc:
            raise self._died() from exc
        except NonsenseError as exc:
            raise self._death(f"was ended, since it talked nonsense ({exc})") from exc

    def _hear(self, message: Message) -> WrittenTemplate | None:
        """Do what the process says or asks for; return what was written, once it says so."""
        match text(message, "say"):
            case "advance":
                self._step(message)(number(message, "amount"))
            case "begin":
                self._begin(message)
            case "hold" | "write" as what:
                act = self._hold if what == "hold" else self._write
                self._answer(number(message, "id"), act, number(message, "amount"))
            case "work":
                self._help(self._take_place, number(message, "id"))
            case "rest":
                self._rest()
            case "open":
                ids = number(message, "id"), number(message, "end")
                self._help(self._pump, self._way_to(self._layer(message), message), *ids)
            case "mistrust":
                others = self._image.mistrust(self._layer(message))
                self._send({"id": number(message, "id"), "others": others})
            case "vouch":
                self._image.vouch(self._layer(message))
            case "failed":
                raise error_of(message.get("error"))
            case "short":
                raise self._options.limits.memory.error(MEMORY)
            case "fault":
                raise RuntimeError(text(message, "error"))
            case "done":
                return written_of(message)
            case _:
                raise NonsenseError("nothing that a conversion says")
        return None

    def _layer(self, message: Message) -> Descriptor:
        nth = number(message, "layer")
        if not 0 <= nth < len(self._layers):
            raise NonsenseError("a layer that the image lacks")
        return self._layers[nth]

    def _begin(self, message: Message) -> None:
        """Pass on that a step begins."""
        total = None if message.get("total") is None else number(message, "total")
        name, subject = text(message, "step"), text(message, "subject")
        if len(self._steps) >= _STEPS_OF_A_LAYER * len(self._layers) + _STEPS:
            raise NonsenseError("too many steps")
        self._steps[number(message, "id")] = self._options.progress.begin(name, subject, total)

    def _step(self, message: Message) -> Advance:
        step = self._steps.get(number(message, "id"))
        if step is None:
            raise NonsenseError("a step that did not begin")
        return step

    def _answer(self, name: int, act: Callable[[int], None], argument: int) -> None:
        """Answer a question by what a call says; a name of 0 is no question."""
        answer: Message = {"id": name}
        try:
            act(argument)
        except SyncdError as exc:
            answer["error"] = error_message(exc)
        if name:
            self._send(answer)

    def _hold(self, amount: int) -> None:
        if self._share.held + amount < self._least:
            raise NonsenseError("memory is given back that was not held")
        self._share.hold(amount)

    def _write(self, amount: int) -> None:
        """Count bytes that the process is going to write, or that others see now."""
        if self._written + amount < 0:
            raise NonsenseError("room is given back that was not taken")
        self._options.scratch.room(amount)
        self._written += amount

    def _rest(self) -> None:
        if not self._places:
            raise NonsenseError("a place is given back that was not taken")
        with self._lock:
            self._places -= 1
        self._share.give_place()

    def _take_place(self, name: int) -> None:
        """Wait for a place to work in, for the process."""

        def alive() -> None:
            if self._over.is_set():
                raise StoppedError("the conversion ended")

        with self._keeping_it_waiting():
            self._share.take_place(alive)
        with self._lock:
            self._places += 1
        self._send({"id": name})

    def _way_to(self, layer: Descriptor, message: Message) -> Callable[[], Reader]:
        """Return what opens the layer that is asked for, or the ranges of it."""
        if message.get("ranges") is None:
            return partial(self._image.open_layer, layer)
        return partial(self._image.ranges, layer, ranges_of(message, layer.size))

    def _pump(self, open_layer: Callable[[], Reader], name: int, end: int) -> None:
        """Have a layer flow to the process; answer the wish of this name, and tell of the end."""
        answer: Message = {"id": name}

        def hand_over(source: int) -> None:
            self._send({"id": name, "descriptor": True}, source)
            answer["id"] = end

        try:
            pump(open_layer, hand_over, self._keeping_it_waiting)
        except LASTING as exc:
            answer["error"] = error_message(exc)
        self._send(answer)

    def _send(self, message: Message, descriptor: int | None = None) -> None:
        """Send a message; who receives tells of a process that is gone."""
        with suppress(ConnectionError):
            self._channel.send(message, descriptor)

    def _help(self, act: Callable[..., None], *arguments: object) -> None:
        """Do something for the process on another thread; a fault there is the conversion's."""

        def helped() -> None:
            try:
                act(*arguments)
            except BaseException as exc:  # noqa: BLE001 - raised by the thread that holds the talk
                self._fault = self._fault or exc
                self._process.kill()
            finally:
                with self._lock:
                    self._wishes -= 1

        with self._lock:
            if self._wishes >= _WISHES:
                raise NonsenseError("more is asked for at a time than a conversion needs")
            self._wishes += 1
        self._helpers.submit(helped)

    @contextmanager
    def _keeping_it_waiting(self) -> Iterator[None]:
        """Count a wait that the process is not to blame for."""
        with self._lock:
            self._waits += 1
        try:
            yield
        finally:
            with self._lock:
                self._waits -= 1
                self._moved = time.monotonic()

    def _look_for_a_move(self) -> None:
        with self._lock:
            silent = time.monotonic() - self._moved
            if self._waits or silent < SILENT_MAX:
                return
        raise self._death(f"gave no sign of life for {silent:.0f} s, and was ended")

    def _died(self) -> BaseException:
        """Return why the process is gone."""
        code = self._process.ended(_DEATH)
        if self._fault is not None:
            return self._fault
        if code is None:
            return NoProcessError("the process that converted was lost, with the server of these")
        if code >= 0:
            return self._death(f"ended with status {code}")
        if code == -signal.SIGKILL:
            return self._death("was killed (SIGKILL), most likely since memory ran out")
        return self._death(f"was killed by a signal ({_signal_name(-code)})")

    def _death(self, how: str) -> ConversionDiedError:
        return ConversionDiedError(
            f"the process that converted {self._image.image.manifest_digest} {how}",
            "the journal may say more (journalctl -u syncd; journalctl -k)",
        )


def _signal_name(number: int) -> str:
    known = {each.value: each.name for each in signal.Signals}
    return known.get(number, str(number))
