"""Publications that died half-way: finished in the ledger, or struck from it.

The ledger says that a template is to be published before a target is written, and that it is
published afterwards.  A process that is killed in between leaves the first line alone, perhaps with
a file, perhaps with a hidden part of one.  Nothing else would ever look at these again once the tag
means another image.
"""

from __future__ import annotations

import structlog

from syncd.errors import PublishError
from syncd.sync.ledger import Ledger
from syncd.sync.template import Intention
from syncd.sync.template_cache import is_intact
from syncd.targets import Target

log = structlog.stdlib.get_logger()


class Leftovers:
    """Looks after dead publications.  Blocking; safe to use from several threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def settle(self, target: Target) -> None:
        """Bring the ledger in line with what dead publications left in a target.

        A whole file becomes a published template, older than every other, so that retention sees
        it; where there is no file the line is struck.  A file of another size or content stays, and
        so does its line: the next job of the image mends it.  What a running job may be publishing
        is left alone.  A target that cannot be asked is asked next time.  Raise LedgerError.
        """
        for intention in self._ledger.intentions(target.name):
            try:
                self._settle(target, intention)
            except PublishError as exc:
                name = intention.template.name
                log.warning("leftover not looked at", template=name, error=str(exc))

    def _settle(self, target: Target, intention: Intention) -> None:
        template = intention.template
        lines = log.bind(target=target.name, template=template.name)
        if target.remove_part(template.name):
            lines.info("leftover part removed")
        listed = [volume for volume in target.volumes() if volume.name == template.name]
        if not listed:
            if self._ledger.strike(intention):
                lines.info("leftover struck")
        elif all(v.size == template.size for v in listed) and self._is_whole(target, intention):
            volumes = tuple(dict.fromkeys(volume.volid for volume in listed))
            if self._ledger.complete(intention, volumes):
                lines.info("leftover finished", volumes=volumes)
        else:
            lines.warning("leftover is no whole file", sizes=[volume.size for volume in listed])

    def _is_whole(self, target: Target, intention: Intention) -> bool:
        """Tell whether a file has the digest it was made with; one out of reach is believed."""
        path = target.local(intention.template.name)
        return path is None or is_intact(path, intention.template.file_digest)
