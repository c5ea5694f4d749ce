"""Files in folders that others use: who owns a file, and how it appears whole or not at all.

`atomic_write` gives a file its name once all its bytes are on the disk.  `publish_file` puts a
finished file into a folder that others list, durably and never over another file; `remove_part`
removes what is left of one that died; `paced_digest` reads a file again, slowly; `require_free`
looks for room; `carry` brings files from one root file system into another.  The other functions
ensure that a file which root creates belongs to the owner of its folder.
"""

from syncd.files.atomic import atomic_write
from syncd.files.carried import carry, check_carried
from syncd.files.ownership import hand_over, make_folder, open_own, replace_file
from syncd.files.paced import paced_digest
from syncd.files.publish import publish_file, remove_part
from syncd.files.space import free_and_total, require_free, require_room

__all__ = [
    "atomic_write",
    "carry",
    "check_carried",
    "free_and_total",
    "hand_over",
    "make_folder",
    "open_own",
    "paced_digest",
    "publish_file",
    "remove_part",
    "replace_file",
    "require_free",
    "require_room",
]
