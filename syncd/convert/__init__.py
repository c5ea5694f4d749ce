"""Turns an image into a template file: unpacks the layers, lays them over each other, writes.

Nothing is extracted to a file system, so no root is needed and no path in a layer can escape.  The
same image and options give the same bytes.  This package knows no registry and no Proxmox VE.
"""

from syncd.convert.capacity import Capacity
from syncd.convert.findings import lost_startup
from syncd.convert.flattened import Flattened, flatten, list_members
from syncd.convert.frame_reader import write_tables
from syncd.convert.heap import share_one_heap
from syncd.convert.isolation import ConversionProcesses
from syncd.convert.options import Options
from syncd.convert.pipeline import Convert, alive, convert
from syncd.convert.scratch import ScratchSpace, kept_at
from syncd.convert.workdir import conversion_folder, remove_abandoned
from syncd.convert.written_template import WrittenTemplate

__all__ = [
    "Capacity",
    "ConversionProcesses",
    "Convert",
    "Flattened",
    "Options",
    "ScratchSpace",
    "WrittenTemplate",
    "alive",
    "conversion_folder",
    "convert",
    "flatten",
    "kept_at",
    "list_members",
    "lost_startup",
    "remove_abandoned",
    "share_one_heap",
    "write_tables",
]
