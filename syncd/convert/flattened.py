"""An opened image flattened by one call: the way in for programs that use syncd as a library.

`flatten` writes a template file, and `list_members` tells what such a file would hold.  Both read
an image that `syncd.open_image` opened, need no daemon, no configuration and no root, and extract
nothing to the file system.  Nothing is remembered: the same image is converted anew each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from syncd.convert.decompress import decompressed
from syncd.convert.findings import Findings
from syncd.convert.options import Options
from syncd.convert.overlay import Tree
from syncd.convert.pipeline import convert
from syncd.convert.scratch import ScratchSpace
from syncd.convert.unpack import explained
from syncd.convert.zstd_windows import Windows
from syncd.errors import ImageError, RequestError, VerificationError
from syncd.formats import Format
from syncd.limits import Allowance, Budget, Limits
from syncd.oci import Digest, Layer, OpenedImage, Reader
from syncd.progress import Progress, Silence
from syncd.tar import Member, Parser

LEVELS = range(1, 20)
"""zstd's compression levels that `flatten` takes, the same as those of `syncd convert --level`."""

_READ = 256 << 10  # bytes of a blob that are read at a time


@dataclass(frozen=True, slots=True)
class Flattened:
    """A template file that was written.

    `digest` and `size` (bytes) are those of the file.  `diff_id` is the digest of the plain tar,
    which holds the image's whole file system, whatever the format of the file is
    (https://github.com/opencontainers/image-spec/blob/main/config.md, "Layer DiffID").  `warnings`
    are sentences on what a container made from the template will lack.
    """

    digest: Digest
    size: int
    diff_id: Digest
    warnings: tuple[str, ...] = ()


def flatten(
    image: OpenedImage,
    output: str | os.PathLike[str],
    *,
    format: str = Format.ROOTFS,  # noqa: A002 - the field's word
    level: int = 3,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Flattened:
    """Write the image as one template file to `output`, and replace a file that has this name.

    The bytes are those that `syncd convert` writes.  `format` is `rootfs` (a `.tar.zst` that every
    Proxmox VE reads) or `oci` (a `.tar` for Proxmox VE 9.1 and later); the name of `output` may
    end in anything.  `level` is zstd's, from 1 to 19.  `limits` bounds what the image may ask of
    this machine.  `progress` hears how many bytes are done, from several threads; an exception of
    type StoppedError that it raises ends the work.  Scratch files lie in the folder of `output`
    and have no name.

    After an error no part of the new file is left.  Raise RequestError for an argument that is not
    possible, ImageError for an image that is not right, StorageError for a disk that refuses, and
    RegistryError for a registry that does.
    """
    if format not in tuple(Format):
        raise RequestError(f"{format!r} is no format of a template", "use 'rootfs' or 'oci'")
    if type(level) is not int or level not in LEVELS:
        raise RequestError(f"{level!r} is no compression level", "use a number from 1 to 19")
    path = Path(output)
    if not path.name or "\0" in str(path):
        raise RequestError(f"{str(output)!r} is not the name of a file", "name the file to write")
    options = Options(
        ScratchSpace(path.absolute().parent),
        format=Format(format),
        level=level,
        limits=limits or Limits(),
        progress=progress or Silence(),
        with_diff_id=True,
    )
    written = convert(image, path, options)
    assert written.diff_id is not None  # noqa: S101 - the options ask for it
    return Flattened(written.digest, written.size, written.diff_id, written.warnings)


def list_members(image: OpenedImage, *, limits: Limits | None = None) -> Iterator[Member]:
    """Return what the flattened image holds, one member for each name, in a template's order.

    Every layer is read and verified to its end before this returns, and no content is kept: the
    members' `size` is that of their content, but their `extents` and `frames` mean nothing here.
    An ACL with the name of a user or group is left out: the ids are in the content of other
    members.
    Raise ImageError, StorageError and RegistryError as `flatten` does.
    """
    bounds = limits or Limits()
    bounds.layers.check(len(image.image.layers), "the number of layers")
    memory = Allowance(bounds.memory, "the memory that the members need")
    budget = Budget(bounds, memory.take)
    tree = Tree(bounds, memory.take)
    for layer in image.image.layers:
        with closing(image.open_layer(layer.descriptor)) as blob:
            try:
                tree.apply(_members(blob, layer, budget))
            except ImageError as exc:
                raise explained(exc, layer) from exc
    return (entry.member for entry in Findings(Format.ROOTFS).over(tree.plan()))


def _members(blob: Reader, layer: Layer, budget: Budget) -> list[Member]:
    """Return the members of one layer, whose blob and tar are verified to their ends."""
    parser = Parser(budget.limits, budget.metadata, None, budget.hold)
    hasher = layer.diff_id.hasher()
    with Windows(budget.hold) as windows:
        for chunk in decompressed(lambda: blob.read(_READ), layer.descriptor.compression, windows):
            budget.unpacked.take(len(chunk))
            hasher.update(chunk)
            parser.feed(chunk)
    parser.close()
    if hasher.hexdigest() != layer.diff_id.encoded:
        raise VerificationError(f"its tar is not of diff_id {layer.diff_id}", "push it again")
    return parser.members
