"""Turns an image into a template file: unpack every layer, lay the layers over each other, write.

`convert` blocks, so an asyncio caller puts it into a thread.  The output appears under its name
complete, or not at all, whatever happens.
"""

from __future__ import annotations

import gc
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from syncd.convert import oci_writer, template_writer
from syncd.convert.account_names import AccountNames
from syncd.convert.capacity import Alive, Capacity, CrowdedError, Share
from syncd.convert.earlier import earlier_tables
from syncd.convert.findings import Findings, lost_startup
from syncd.convert.frame_store import THREADS, FrameStore, FrameTable, engine_size
from syncd.convert.options import Options
from syncd.convert.overlay import Tree
from syncd.convert.parts import PartialPulls
from syncd.convert.unpack import Unpacked, UnpackResources, explained, recall
from syncd.convert.written_template import WrittenTemplate
from syncd.errors import ImageError, LostFrameError, StoppedError, StorageError, SyncdError
from syncd.files import atomic_write
from syncd.formats import Format
from syncd.limits import Allowance, Budget, Hold
from syncd.oci import Descriptor, Digest, Image, Layer, OpenedImage
from syncd.progress import Advance, Progress

LAYERS_AT_A_TIME = 4
"""Layers of an image that are unpacked side by side."""
BASE = 4 << 20
"""Bytes of memory that a conversion takes before it works."""
_NICER = 5  # steps of niceness
_READ = 1 << 20


Convert = Callable[[OpenedImage, Path, Options], WrittenTemplate]
"""Converts an image as `convert` does: in this process, or in others."""
Attempt = Callable[[OpenedImage, Path, Options, Share], WrittenTemplate]
"""Converts once, as `attempt` does: in this process, or in another one."""


def convert(
    image: OpenedImage, output: Path, options: Options, run: Attempt | None = None
) -> WrittenTemplate:
    """Write the image as a template to `output`, replacing what is there.

    The result describes the whole file; it has the diff_id of the flattened tar if the format is
    `oci` or the options ask for it.  Layers that the scratch space kept, and frames of earlier
    templates, are not made again.  Raise ImageError for an image that is not right, or that no
    unprivileged container can be made from if the options are strict, LimitError for
    an image that goes beyond a bound, StorageError for a disk that refuses, and whatever reading a
    layer raises.  Each attempt is made by `run`, else by `attempt`.
    """
    options.limits.layers.check(len(image.image.layers), "the number of layers")
    capacity = options.capacity or Capacity(1, options.limits.memory)
    run = run or attempt
    needed = BASE
    while True:
        written = _Counted(options.scratch.room)
        scratch = options.scratch.counted_by(written)
        try:
            with capacity.share(
                needed, alive(options.progress, "a place and memory to convert in")
            ) as share:
                return run(image, output, replace(options, scratch=scratch), share)
        except LostFrameError:
            options = replace(options, scratch=options.scratch.without_kept(), earlier=())
        except CrowdedError as exc:
            needed = min(2 * exc.needed, options.limits.memory.maximum)
        except SyncdError:
            written.forget()
            raise
        # What is left of the attempt hangs on its error, in circles, and is counted no more.
        gc.collect()
        written.forget()


class _Counted:
    """Counts the bytes that an attempt writes.  Safe to use from several threads."""

    def __init__(self, room: Hold) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._amount = 0

    def __call__(self, amount: int) -> None:
        self._room(amount)
        with self._lock:
            self._amount += amount

    def forget(self) -> None:
        """Count no more what was written: it is gone."""
        self._room(-self._amount)


def alive(progress: Progress, what: str) -> Alive:
    """Return what tells that a conversion waits for `what`, and raises where it is to stop."""
    advance: Advance | None = None

    def still() -> None:
        nonlocal advance
        advance = advance or progress.begin("wait", what, None)
        advance(0)

    return still


def attempt(opened: OpenedImage, output: Path, options: Options, share: Share) -> WrittenTemplate:
    """Convert once.

    Raise LostFrameError when an earlier template has lost a frame meanwhile, and CrowdedError when
    other conversions hold the memory that this one needs.
    """
    image, limits = opened.image, options.limits
    # Those that compress large contents and those that write have half of the memory at most.
    threads = min(THREADS, max(limits.memory.maximum // (4 * engine_size(options.level)), 1))
    with ExitStack() as stack:
        earlier = None
        if options.earlier is not None:
            earlier = earlier_tables(options.earlier, options.level, share.hold)
        scratch = options.scratch.new()
        frames = stack.enter_context(
            FrameStore(options.level, scratch, earlier, options.frame_sizes, share.hold)
        )
        compressing = stack.enter_context(ThreadPoolExecutor(threads, "compress", _stand_back))
        budget = Budget(limits, share.hold)
        resources = UnpackResources(
            options.scratch, frames, compressing, budget, waiting=share.waiting
        )
        pulls = stack.enter_context(PartialPulls(opened, resources, share, options.progress))
        tree = Tree(limits, share.hold)
        contents = []
        layers = stack.enter_context(_unpacked(opened, resources, pulls, options.progress, share))
        for layer, unpacked in zip(image.layers, layers, strict=True):
            try:
                tree.apply(unpacked.members)
            except ImageError as exc:
                raise explained(exc, layer) from exc
            contents.append(unpacked.fd)
        stack.enter_context(share.working())
        findings = Findings(options.format, AccountNames(tree, contents))
        with atomic_write(output) as file:
            if options.format is Format.OCI:
                oci_writer.begin(file, image)
            written = template_writer.write(
                findings.over(tree.plan()),
                contents,
                file,
                frames=frames,
                allowance=Allowance(limits.unpacked, "the size of all files"),
                advance=options.progress.begin("flatten", output.name, tree.size()),
                with_diff_id=options.with_diff_id or options.format is Format.OCI,
                threads=threads,
                hold=share.hold,
                room=options.scratch.room,
            )
            if options.strict:
                findings.refuse_obstacles()
            lost = lost_startup(image) if options.format is Format.ROOTFS else ()
            written = replace(
                written,
                warnings=(*findings.warnings, *lost, *pulls.doubts),
                is_suitable=not findings.obstacles,
            )
            if options.format is Format.OCI and written.diff_id is not None:
                archived = _archived(file, image, written, written.diff_id)
                options.scratch.room(archived.size - written.size)
                written = archived
        if options.table is not None and written.table is not None:
            options.scratch.room(written.table.size)
            _write_table(written.table, options.table)
        return written


def _write_table(table: FrameTable, path: Path) -> None:
    try:
        table.write(path)
    except OSError as exc:
        raise StorageError(
            f"{path.parent} does not take the table of a template: {exc.strerror}",
            "check its permissions and free space",
        ) from exc


def _archived(
    file: BinaryIO, image: Image, layer: WrittenTemplate, diff_id: Digest
) -> WrittenTemplate:
    """Complete an OCI archive around its layer; return what the file is as a whole."""
    descriptor = Descriptor(oci_writer.OCI_LAYER, layer.digest, layer.size)
    size = oci_writer.finish(file, image, Layer(descriptor, diff_id))
    # The bytes before the layer depend on its digest, so the file is hashed when it is complete.
    file.seek(0)
    hasher = hashlib.sha256()
    while chunk := file.read(_READ):
        hasher.update(chunk)
    digest = Digest("sha256", hasher.hexdigest())
    return replace(layer, size=size, digest=digest)


@contextmanager
def _unpacked(
    opened: OpenedImage,
    resources: UnpackResources,
    pulls: PartialPulls,
    progress: Progress,
    share: Share,
) -> Iterator[Iterator[Unpacked]]:
    """Give the unpacked layers in their order; equal layers are unpacked once, several at a time.

    The layers stay open until the context ends; layers that are not unpacked by then are given up.
    """
    over = threading.Event()

    def until_over(tell: Advance) -> Advance:
        def advance(amount: int) -> None:
            if over.is_set():
                raise StoppedError("the conversion ended")
            tell(amount)

        return advance

    def unpack_or_recall(layer: Layer) -> Unpacked:
        with ExitStack() as otherwise:
            with share.working():
                kept = recall(layer, resources)
            if kept is not None:
                otherwise.enter_context(kept)
                if over.is_set():
                    raise StoppedError("the conversion ended")
                otherwise.pop_all()
                return kept
        # A layer that was kept unpacked is not read, and not told of.
        while True:
            unpacked = unpack_pulled(layer)
            if unpacked is not None:
                return unpacked

    def unpack_pulled(layer: Layer) -> Unpacked | None:
        blob = layer.descriptor
        with pulls.look(layer) as prospect:
            if prospect is not None:
                pulled = pulls.pull(prospect, until_over)
                if pulled is not None:
                    return pulled
            if pulls.is_anew(layer):
                return None
            advance = until_over(progress.begin("layer", str(blob.digest), blob.size))
            advance(0)
            with closing(opened.open_layer(blob)) as reader, share.working():
                return pulls.unpack(reader, layer, prospect, advance)

    with ThreadPoolExecutor(LAYERS_AT_A_TIME, thread_name_prefix="layer") as pool:
        running = {}
        for layer in sorted(set(opened.image.layers), key=lambda layer: -layer.descriptor.size):
            running[layer] = pool.submit(unpack_or_recall, layer)
        try:
            yield (running[layer].result() for layer in opened.image.layers)
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)
            for future in running.values():
                if not future.cancelled() and future.exception() is None:
                    future.result().close()


def _stand_back() -> None:
    """Lower the priority of this thread, so that the threads that unpack layers come first.

    Else the thread that unpacks an image's only layer gets half a core, and all others wait for it.
    On Linux each thread has a priority of its own (setpriority(2)).
    """
    with suppress(OSError):  # a sandbox may not allow it
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + _NICER)
