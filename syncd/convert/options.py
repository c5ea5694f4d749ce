"""How an image is converted: everything that the caller of `convert` may choose.

Pure.  Only the format, the level and the frame sizes decide the bytes of the template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from syncd.convert.capacity import Capacity
from syncd.convert.frame_store import FrameSizes
from syncd.convert.scratch import ScratchSpace
from syncd.formats import Format
from syncd.limits import Limits
from syncd.progress import Progress, Silence


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one conversion."""

    scratch: ScratchSpace
    """Where unpacked content is put; it needs room for all layers, compressed, and is left as it
    was, except for the layers that the space itself keeps."""
    format: Format = Format.ROOTFS
    """The format of the template."""
    level: int = 3
    """The compression level of zstd, 1 to 19."""
    limits: Limits = field(default_factory=Limits)
    """The bounds on what the image may ask of this machine."""
    capacity: Capacity | None = None
    """What all conversions of the process share: places to work in, and `limits.memory`.  With None
    the conversion has all of it to itself."""
    progress: Progress = field(default_factory=Silence)
    """Hears of the steps `layer` (bytes of a blob), `parts` (bytes of a blob that are fetched of it
    alone) and `flatten` (bytes of the plain tar), and may stop the conversion."""
    strict: bool = False
    """Whether an image is refused that no unprivileged container can be made from."""
    with_diff_id: bool = False
    """Whether the plain tar of a `rootfs` template is digested too; that of `oci` always is."""
    earlier: Sequence[tuple[Path, Path]] | None = None
    """Template files that were made before, each with the file of its table, the most useful first;
    their frames are copied instead of compressed again.  With None nothing is remembered: the
    result has no table and `scratch` keeps no layer."""
    table: Path | None = None
    """Where the template's own table is written, if there is one, for later conversions."""
    frame_sizes: FrameSizes = field(default_factory=FrameSizes)
    """Where the template is cut into frames.  Layers that `scratch` keeps must be of conversions
    with the same sizes."""
