"""What a reference means now, and where that lies: the questions of a job, asked off the loop.

Looking at registries and targets has an executor of its own, bounded for each of them, so that a
registry that says nothing keeps nobody but its own images waiting.  Nothing is published here, and
nothing is written but what the ledger learns of files that it knows.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from syncd.errors import PublishError, StoppedError, SyncdError
from syncd.oci import CallerLogin, Descriptor, Digest, Image, Platform, Reference, read_image
from syncd.progress import Progress, Silence, Stoppable
from syncd.sync.conditions import Finding
from syncd.sync.context import OpenRepository, Running, SyncContext
from syncd.sync.documents import Documents
from syncd.sync.executors import Executors
from syncd.sync.ledger import Ledger
from syncd.sync.platform_choice import Use, placed
from syncd.sync.presence import Held, Presence, PresenceQuery
from syncd.sync.tally import Step
from syncd.targets import Target


class Lookup:
    """Asks registries, targets and the ledger.  Lives in one event loop.

    `watch` gives the progress of a job; setting `stopping` ends what waits for a registry.
    """

    def __init__(
        self,
        running: Running,
        ledger: Ledger,
        executors: Executors,
        *,
        open_repository: OpenRepository,
        stopping: threading.Event,
        watch: Callable[[Reference], Progress],
    ) -> None:
        self._running = running
        self._ledger = ledger
        self._run = executors.looking.run
        self._ask_ledger = executors.ledger
        self._open_repository = open_repository
        self._stopping = stopping
        self._watch = watch
        self._presence = PresenceQuery(ledger)
        self._documents = Documents()

    def contexts(
        self, reference: Reference, target: str | None = None, login: CallerLogin | None = None
    ) -> list[SyncContext]:
        """Gather what a reference's job needs, for each of its platforms.

        It is for all of its targets or only one.  With a caller's `login` nobody watches how far
        the job is.  Raise PublishError where there is no target.
        """
        settings = self._running.config.image_for(reference)
        targets = self._running.targets
        names = targets if settings.targets is None else settings.targets
        if not names:
            raise PublishError(
                f"nothing is configured to publish {reference} to", "add a [[target]]"
            )
        if login is None:
            progress = Stoppable(self._watch(reference), self._stopping)
        else:
            progress = Stoppable(Stoppable(Silence(), login.cancelled), self._stopping)
        repository = self._open_repository(reference, progress.pause, login)
        wanted = tuple(targets[name] for name in names if target in (None, name))
        return [
            SyncContext(reference, settings, repository, wanted, progress, platform, login)
            for platform in settings.platforms
        ]

    async def resolve(self, context: SyncContext) -> Descriptor:
        """Return what the reference means now."""
        reference = context.reference
        return await self._run(reference.registry, context.repository.resolve, reference)

    async def read(self, context: SyncContext, top: Descriptor) -> Image:
        """Return the image of the context's platform."""
        registry = context.reference.registry
        return await self._run(registry, read_image, context.repository, top, context.platform)

    def image(self, context: SyncContext, top: Descriptor) -> AbstractAsyncContextManager[Image]:
        """Give the image of the context's platform to a job, which holds it for long."""

        def read() -> Awaitable[Image]:
            return self._ledger.tally.step(Step.READ, self.read(context, top))

        return self._documents.held(read)

    async def platform_for(self, reference: Reference, target: Target, use: Use) -> Platform:
        """Return the platform to take in a target; raise as `placed`."""
        context = self.contexts(reference)[0]
        return (await self._run(target.name, placed, context, target, use))[0].platform

    async def manifest_of(self, reference: Reference, platform: Platform) -> Digest:
        """Return the digest of a platform's manifest that a reference means now.

        The ledger knows it for what was published; else the manifest is read.
        """
        context = replace(self.contexts(reference)[0], platform=platform)
        top = await self.resolve(context)
        published = await self._ask_ledger(self._ledger.templates, reference)
        for template in published:
            if (template.digest, template.platform) == (top.digest, context.platform):
                return template.manifest_digest
        return (await self.read(context, top)).manifest_digest

    async def look(self, context: SyncContext, top: Descriptor) -> dict[str, Finding]:
        """Return what is found in each target, by its name, as far as the ledger knows."""
        return await self._run(context.places, self._presence.look, context, top)

    async def presences(self, contexts: Sequence[SyncContext]) -> list[Presence | SyncdError]:
        """Return where the image of each platform lies, by anybody's hand, or why nobody can tell.

        The tag is read once.  Raise SyncdError where it cannot be read.
        """
        top = await self.resolve(contexts[0])
        return [await self._find(context, top) for context in contexts]

    async def whole(
        self, reference: Reference, login: CallerLogin | None = None
    ) -> tuple[str, ...]:
        """Return the volume ids of all platforms where all are published; else none."""
        found = await self.presences(self.contexts(reference, login=login))
        presences = [_told(presence) for presence in found]
        everywhere = all(presence.everywhere for presence in presences)
        return tuple(v for presence in presences for v in presence.volumes) if everywhere else ()

    async def used(
        self,
        contexts: Sequence[SyncContext],
        presences: Sequence[Presence | SyncdError],
        use: Use,
    ) -> Presence:
        """Return of each target where the image of the platform lies that is to be used there.

        Raise why nobody can tell, and as `placed`.
        """
        by_platform = dict(zip((each.platform for each in contexts), presences, strict=True))
        first = contexts[0]
        found: dict[str, Held | None] = {}
        digests = []
        for target in first.targets:
            context, _ = await self._run(target.name, placed, first, target, use)
            presence = _told(by_platform[context.platform])
            found[target.name] = presence.targets[target.name]
            digests.append(presence.digest)
        return Presence(digests[0] if digests else _told(presences[0]).digest, found)

    async def _find(self, context: SyncContext, top: Descriptor) -> Presence | SyncdError:
        try:
            presence = await self._run(context.places, self._presence.ask, context, top)
            if presence.everywhere:
                return presence
            image = await self.read(context, top)
            return await self._run(context.places, self._presence.ask, context, top, image)
        except StoppedError:
            raise
        except SyncdError as exc:
            return exc

    async def known(self, context: SyncContext, top: Descriptor) -> Presence:
        """Return where the image lies, as far as the ledger knows; the ledger learns of it."""

        def ask() -> Presence:
            presence = self._presence.ask(context, top)
            if presence.everywhere:
                self._presence.learn(context, top, filter(None, presence.targets.values()))
            return presence

        return await self._run(context.places, ask)

    async def held(
        self, context: SyncContext, target: Target, top: Descriptor, image: Image
    ) -> Held | None:
        """Return how a target holds the image, or None; the ledger learns of it.

        Of a publication that failed behind its file, as where its hidden part could not be removed,
        nothing is left.
        """

        def ask() -> Held | None:
            held = self._presence.ask_one(context, target, top, image)
            if held is not None:
                if held.template is not None and not held.finished:
                    target.remove_part(held.template.name)
                self._presence.learn(context, top, [held])
            return held

        return await self._run(target.name, ask)


def _told(presence: Presence | SyncdError) -> Presence:
    """Return a presence; raise the error that keeps it from being told."""
    if isinstance(presence, SyncdError):
        raise presence
    return presence
