"""What `verify` finds out: published files against the ledger, and who signed the image.

Commands ask this of the daemon, or without one do it themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from syncd.config import Config
from syncd.errors import SyncdError, UnpublishedError
from syncd.oci import Reference
from syncd.sync.engine import SyncEngine
from syncd.sync.selection import named
from syncd.sync.template import Template
from syncd.sync.template_views import anybody
from syncd.sync.verification import Verified, Verifier
from syncd.sync.vouching import Examined


async def verify_all(
    config: Config,
    engine: SyncEngine,
    verifier: Verifier,
    wanted: Reference | None,
    told: Callable[[Template], bool] = anybody,
) -> tuple[Sequence[Verified], Sequence[Examined]]:
    """Return what the published files of a reference, or all, are, and who signed the reference.

    A reference without tag and digest stands for the watched tags of its repository.  What cannot
    be found out about signatures is a fault of these.  Raise UnpublishedError for a reference of
    which nothing is published and no image is found.  Where its repository is not watched either,
    no registry is asked: not for just any name.  Of templates, only what is `told` counts.
    """
    unpublished: UnpublishedError | None = None
    try:
        files = await verifier.verify_published(wanted, told)
    except UnpublishedError as exc:
        if wanted is None or not config.images_of(wanted):
            raise
        files, unpublished = [], exc
    if wanted is None:
        return files, ()
    meant = await named(config, engine, [wanted])
    examined = [await _examined(engine, reference) for reference in meant.references]
    if unpublished is not None and not any(one.digest for one in examined):
        raise unpublished
    return files, examined


async def _examined(engine: SyncEngine, reference: Reference) -> Examined:
    context = engine.context(reference)
    try:
        return await engine.vouching.examine(context)
    except SyncdError as exc:
        return Examined(reference, None, context.settings.policy, (), str(exc), ())
