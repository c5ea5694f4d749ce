"""An image turned into a template file: unpack every layer, lay them over, write.

Blocking: callers put it into a thread.  The output appears under its name at once and complete,
or not at all, whatever happens.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from syncd import ociarchive, rootfs
from syncd.belonging import hand_over, make_folder
from syncd.draft import draft
from syncd.errors import ImageError, StorageError
from syncd.frames import THREADS, Frames, LostFrameError, Table
from syncd.job import Advance, Progress, StoppedError
from syncd.layer import Means, Unpacked, explained, recall, unpack
from syncd.limits import Allowance, Budget, Limits
from syncd.manifest import Descriptor, Image, Layer, Reader
from syncd.overlay import Tree
from syncd.reference import Digest
from syncd.spool import Spool
from syncd.template import Format

LAYERS_AT_A_TIME = 4
_NICER = 5  # steps of niceness
_READ = 1 << 20

Open = Callable[[Descriptor], Reader]
"""Opens a layer's blob for one reading, verified at its end."""


def convert(
    image: Image,
    open_blob: Open,
    output: Path,
    *,
    form: Format = Format.ROOTFS,
    level: int,
    limits: Limits,
    spool: Spool,
    progress: Progress,
    earlier: Sequence[tuple[Path, Table]] | None = None,
) -> rootfs.Written:
    """Write the image as a template of the given format to `output`, replacing what is there.

    What is returned describes the file as a whole, with the flattened tar's diff_id where the
    format has use for it.  `spool` has room for what the layers hold.  Layers that it kept, and
    frames of `earlier` templates, are not made again; None for `earlier` means that nothing is
    remembered.  Raise ImageError for an image that is not right, StorageError for a disk that
    refuses, and whatever `open_blob` raises.
    """
    limits.check("layers", len(image.layers), "the number of layers")

    def attempt(room: Spool, reused: Sequence[tuple[Path, Table]] | None) -> rootfs.Written:
        with ExitStack() as stack:
            frames = stack.enter_context(Frames(level, room.new(), reused))
            pressing = stack.enter_context(ThreadPoolExecutor(THREADS, "compress", _stand_back))
            means = Means(room, frames, pressing, Budget(limits))
            tree = Tree(limits)
            contents = []
            layers = stack.enter_context(_unpacked(image.layers, open_blob, means, progress))
            for layer, unpacked in zip(image.layers, layers, strict=True):
                try:
                    tree.apply(unpacked.members)
                except ImageError as exc:
                    raise explained(exc, layer) from exc
                contents.append(unpacked.fd)
            with draft(output) as file:
                if form is Format.OCI:
                    ociarchive.begin(file, image)
                written = rootfs.write(
                    tree.plan(),
                    contents,
                    file,
                    frames=frames,
                    allowance=Allowance(limits, "unpacked", "the size of all files"),
                    advance=progress.begin("flatten", output.name, tree.size()),
                    with_diff_id=form is Format.OCI,
                )
                if written.diff_id is None:
                    return written
                return _archived(file, image, written, written.diff_id)

    try:
        return attempt(spool, earlier)
    except LostFrameError:
        return attempt(Spool(spool.folder), ())


def _archived(
    file: BinaryIO, image: Image, layer: rootfs.Written, diff_id: Digest
) -> rootfs.Written:
    """Complete an OCI archive around its layer; return what the file is as a whole."""
    descriptor = Descriptor(ociarchive.OCI_LAYER, layer.digest, layer.size)
    size = ociarchive.finish(file, image, Layer(descriptor, diff_id))
    # What stands before the layer is only known after it: so the whole is hashed once it is there.
    file.seek(0)
    hasher = hashlib.sha256()
    while chunk := file.read(_READ):
        hasher.update(chunk)
    digest = Digest("sha256", hasher.hexdigest())
    return replace(layer, size=size, digest=digest)


@contextmanager
def _unpacked(
    layers: tuple[Layer, ...], open_blob: Open, means: Means, progress: Progress
) -> Iterator[Iterator[Unpacked]]:
    """Give the layers in their order, each different one unpacked once, several at a time.

    They stay open as long as the context; what is not done when it ends is given up.
    """
    over = threading.Event()

    def one(layer: Layer, tell: Advance) -> Unpacked:
        def advance(amount: int) -> None:
            if over.is_set():
                raise StoppedError("the conversion ended")
            tell(amount)

        advance(0)
        with ExitStack() as otherwise:
            kept = recall(layer, means)
            if kept is not None:
                otherwise.enter_context(kept)
                advance(layer.descriptor.size)
                otherwise.pop_all()
                return kept
        with closing(open_blob(layer.descriptor)) as blob:
            return unpack(blob, layer, means, advance)

    with ThreadPoolExecutor(LAYERS_AT_A_TIME, thread_name_prefix="layer") as pool:
        running = {}
        for layer in sorted(set(layers), key=lambda layer: -layer.descriptor.size):
            blob = layer.descriptor
            advance = progress.begin("layer", str(blob.digest), blob.size)
            running[layer] = pool.submit(one, layer, advance)
        try:
            yield (running[layer].result() for layer in layers)
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)
            for future in running.values():
                if not future.cancelled() and future.exception() is None:
                    future.result().close()


def _stand_back() -> None:
    """Let this thread yield to those that bring it work.

    Else an image's only layer, which is one thread's, gets half a core, and everybody waits for it.
    On Linux a priority is the thread's own (setpriority(2)).
    """
    with suppress(OSError):  # a sandbox may not allow it
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + _NICER)


@contextmanager
def workshop(spool: Path) -> Iterator[Path]:
    """Give a folder below `spool` for one conversion, and remove it afterwards."""
    try:
        make_folder(spool)
        tidy(spool)
        with ExitStack() as stack:
            with _locked(spool):
                folder = Path(tempfile.mkdtemp(prefix="job-", dir=spool))
                hand_over(folder, spool)
                stack.enter_context(_locked(folder))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as exc:
        raise StorageError(
            f"the spool folder {spool} cannot be used: {exc.strerror}",
            "check its permissions and free space",
        ) from exc


def tidy(spool: Path) -> None:
    """Remove the folders of conversions whose process died: their lock is free."""
    if not spool.exists():
        return
    with _locked(spool):
        for folder in spool.glob("job-*"):
            with suppress(BlockingIOError, FileNotFoundError), _locked(folder, fcntl.LOCK_NB):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[None]:
    """Hold a folder's lock; it goes when the process does, however it ends (flock(2))."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(opened)
