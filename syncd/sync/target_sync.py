"""One image brought into one target: adopted, or converted and published.

Only the conversion takes one of the places of the image's registry.
"""

from __future__ import annotations

from syncd.oci import Image
from syncd.sync.context import SyncContext
from syncd.sync.executors import Executors
from syncd.sync.presence import Held
from syncd.sync.publisher import Publisher
from syncd.sync.target_room import require_room_in
from syncd.sync.template_cache import TemplateCache
from syncd.sync.template_use import TemplateUse
from syncd.targets import Target


class TargetSync:
    """Brings images into targets.  Lives in the engine's event loop."""

    def __init__(
        self, executors: Executors, templates: TemplateCache, publisher: Publisher
    ) -> None:
        self._executors = executors
        self._templates = templates
        self._publisher = publisher

    async def bring(
        self, context: SyncContext, target: Target, image: Image
    ) -> tuple[Held, tuple[str, ...]]:
        """Publish the image in one target that lacks it.

        Return how the target holds it, and sentences on what a container of it will lack.  A file
        that somebody else put there is proven by its record, or by the conversion, and then nothing
        is written.
        """
        form = await self._executors.looking.run(target.name, context.format_for, target)
        adopted = await self._executors.publishing.run(
            target.name, self._publisher.adopt, context, target, image, form
        )
        if adopted is not None:
            return adopted
        await self._executors.looking.run(target.name, require_room_in, context, target, image)
        with TemplateUse() as use:
            file = await self._executors.converting.run(
                context.counted_by, self._templates.file, context, image, form, use
            )
            held = await self._executors.publishing.run(
                target.name, self._publisher.put, context, target, image, file
            )
        return held, file.warnings
