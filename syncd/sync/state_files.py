"""What lies below the state's directory: how large it is, and what of it can be made again.

Only looks.  Files may come and go meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from syncd.config import StatePaths
from syncd.sync.template_use import TABLE, WARNINGS


@dataclass(slots=True)
class Spare:
    """Something that can be made again: a blob, an unpacked layer, or a finished template.

    `path` is its file, `size` its bytes with what lies beside it, and `used` when it was used last,
    in seconds since the epoch.
    """

    path: Path
    size: int = 0
    used: float = 0.0


@dataclass(slots=True)
class Inventory:
    """Bytes of the state: of what stays for ever, of what is in use, of blobs on their way.

    `spares` are in no use; what was used longest ago comes first.
    """

    lasting: int = 0
    busy: int = 0
    coming: int = 0
    spares: list[Spare] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many bytes there are, except those of blobs on their way."""
        return self.lasting + self.busy + sum(spare.size for spare in self.spares)


def look(
    paths: StatePaths, own: Collection[Path], coming: Collection[Path], busy: Collection[Path]
) -> Inventory:
    """Return what lies below the state.

    Nothing in the folders `own` counts.  `coming` are files of blobs that are being fetched, and
    `busy` those that are in use.  Raise OSError.
    """
    found = Inventory()
    spares: dict[Path, Spare] = {}
    for path, status in _files(paths.directory, own):
        main = _spare(paths, path)
        if path in coming:
            found.coming += status.st_size
        elif main is None:
            found.lasting += status.st_size
        elif main in busy:
            found.busy += status.st_size
        else:
            spare = spares.setdefault(main, Spare(main))
            spare.size += status.st_size
            if main == path:
                spare.used = status.st_mtime
    found.spares = sorted(spares.values(), key=lambda spare: spare.used)
    return found


def parts(paths: StatePaths, own: Collection[Path]) -> dict[str, int]:
    """Return the bytes of the parts of the state, without those in the folders `own`."""
    names = {
        paths.blob_cache: "blobs",
        paths.templates: "templates",
        paths.layers: "unpacked",
        paths.scratch: "work",
    }
    found = dict.fromkeys([*names.values(), "ledger", "other"], 0)
    for path, status in _files(paths.directory, own):
        top = paths.directory / path.relative_to(paths.directory).parts[0]
        is_ledger = top.name.startswith(paths.ledger.name)
        found[names.get(top, "ledger" if is_ledger else "other")] += status.st_size
    return found


def _spare(paths: StatePaths, path: Path) -> Path | None:
    """Return the file with which a file can go; None for one that stays."""
    if path.name.startswith("."):
        return None  # somebody is writing it
    cache = paths.blob_cache
    if path.parent in (paths.layers, cache / ".ingest") or path.parent.parent == cache / "blobs":
        return path
    if path.parent == paths.templates:
        is_beside = path.suffix in (TABLE, WARNINGS)
        return path.with_suffix("") if is_beside else path
    return None


def _files(folder: Path, own: Collection[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files below a folder, with what they are; a folder that is gone has none."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            with suppress(FileNotFoundError):
                if not entry.is_dir(follow_symlinks=False):
                    yield path, entry.stat(follow_symlinks=False)
                elif path not in own:
                    yield from _files(path, own)
