"""The way of one job: resolve, pull, flatten, publish, retain.

From the first answer of the registry on, the digest is pinned; the tag is not read again.  Every
step can be repeated after a crash at any instruction: what is done is found done.  Looking at
registries and targets, and converting, each have executors of their own, so that a registry that
says nothing keeps nobody but its own images waiting.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

import structlog

from syncd.convert import Convert
from syncd.errors import (
    NoImageError,
    PublishError,
    StoppedError,
    SyncdError,
    joined,
)
from syncd.oci import CallerLogin, Descriptor, Digest, Image, Reference
from syncd.progress import Progress
from syncd.sync.conditions import Current, Failed, Finding, Place, of_platforms
from syncd.sync.context import OpenRepository, Running, SyncContext
from syncd.sync.executors import Executors
from syncd.sync.job import Outcome, Result, SyncJob
from syncd.sync.ledger import Ledger
from syncd.sync.leftovers import Leftovers
from syncd.sync.lookup import Lookup
from syncd.sync.noting import Noting
from syncd.sync.passed_over import PassedOver
from syncd.sync.platform_choice import ANYWHERE, Use
from syncd.sync.presence import Presence
from syncd.sync.provenance import Provenance
from syncd.sync.publisher import Publisher
from syncd.sync.recorder import ConditionRecorder
from syncd.sync.retention import Retained, Retention
from syncd.sync.state_room import StateRoom
from syncd.sync.tag_list import Listing, TagLists
from syncd.sync.tally import Step
from syncd.sync.target_sync import TargetSync
from syncd.sync.template import Template
from syncd.sync.template_cache import TemplateCache
from syncd.sync.vouching import Vouching

log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class _Brought:
    """How one platform was brought up to date; `is_new` tells that the targets were asked to."""

    context: SyncContext
    outcome: Outcome
    is_new: bool = False


class SyncEngine:
    """Brings references up to date, in every target that wants them.  Lives in one event loop.

    `watch` gives the progress of a job; setting `stopping` ends running work soon.  `tags` tells
    which tags are watched, `vouching` who signed what, `lookup` what a tag means and where it lies,
    `room` what the state takes.  `convert` turns images into files.
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
        conditions: ConditionRecorder,
        convert: Convert,
    ) -> None:
        self._running = running
        self._ledger = ledger
        self._executors = executors
        self.lookup = Lookup(
            running,
            ledger,
            executors,
            open_repository=open_repository,
            stopping=stopping,
            watch=watch,
        )
        self._conditions = conditions
        self.tags = TagLists(
            running, executors, conditions, lambda reference: self.context(reference).repository
        )
        self._noting = Noting(executors, conditions, self.tags)
        self.room = StateRoom(running)
        self._templates = TemplateCache(ledger, running, convert, self.room)
        self._provenance = Provenance(ledger, executors)
        self.vouching = Vouching(running, ledger, executors)
        self._retention = Retention(ledger)
        self._leftovers = Leftovers(ledger)
        self._target_sync = TargetSync(executors, self._templates, Publisher(ledger))
        self._passed_over = PassedOver(running, executors, conditions)
        self._turns: WeakValueDictionary[tuple[str, Digest], asyncio.Lock] = WeakValueDictionary()

    async def tidy(self) -> None:
        """Remove what dead conversions left behind, and files that were kept long enough."""
        await self._executors.tidying.run(self._templates.tidy)

    async def settle(self) -> None:
        """Finish or strike what dead publications left in the ledger and in the targets."""
        run, settle = self._executors.looking.run, self._leftovers.settle
        targets = self._running.targets.items()
        await asyncio.gather(*(run(name, settle, target) for name, target in targets))

    async def sync(self, job: SyncJob) -> Outcome:
        """Ensure that what the reference means now is published; return how that went.

        However that ends, the conditions of the reference say it afterwards; but not of a job with
        a caller's login, which may open less than the configuration does.
        """
        contexts = self.lookup.contexts(job.reference, login=job.login)
        async with self._noting.noted(contexts[0]) as findings:
            outcome = await self._bring(contexts, findings)
        if outcome.warnings:
            log.warning("image has warnings", warnings=outcome.warnings)
        return outcome

    async def give_up(self, job: SyncJob, outcome: Outcome) -> None:
        """Have the conditions say that a job fails which never came to an end."""
        await self._executors.ledger(self._conditions.given_up, job.reference, outcome.message)

    async def watched_tags(self, repository: Reference) -> Listing:
        """Return the watched tags of a repository as they are now."""
        return await self.tags.all_watched(repository)

    async def look(self, reference: Reference) -> dict[str, Finding]:
        """Look at a tag without changing anything; return what is found in each target.

        A registry or target that cannot be asked is a finding, too.  Nothing is found of what a
        job has passed over.
        """
        context = self.context(reference)
        try:
            top = await self.lookup.resolve(context)
            if self._passed_over.has(context, top):
                return {}
        except StoppedError:
            raise
        except SyncdError as exc:
            return dict.fromkeys(
                (target.name for target in context.targets), await self._noting.fault(context, exc)
            )
        contexts = self.lookup.contexts(reference)
        return of_platforms([await self.lookup.look(each, top) for each in contexts])

    async def find(
        self,
        reference: Reference,
        target: str | None = None,
        use: Use = ANYWHERE,
        *,
        login: CallerLogin | None = None,
    ) -> Presence:
        """Tell what the reference means now and where that lies: everywhere, or in one target.

        Of several platforms it is the one for its use.  Changes nothing.  The registry is asked
        first, with a caller's `login` where there is one: who may not have the image is told of
        nothing.
        """
        contexts = self.lookup.contexts(reference, target, login)
        return await self.lookup.used(contexts, await self.lookup.presences(contexts), use)

    async def prove(self, reference: Reference, login: CallerLogin) -> None:
        """Ensure that a caller's login opens an image; raise RegistryError where it does not."""
        await self.lookup.resolve(self.context(reference, login=login))

    async def find_for_use(
        self, reference: Reference, target: str | None = None, use: Use = ANYWHERE
    ) -> Presence:
        """Do as `find` does, and have the conditions say what was found."""
        contexts = self.lookup.contexts(reference, target)
        async with self._noting.noted(contexts[0]) as findings:
            presences = await self.lookup.presences(contexts)
            parts = [
                dict.fromkeys(
                    (t.name for t in each.targets), await self._noting.fault(each, presence)
                )
                if isinstance(presence, SyncdError)
                else presence.findings
                for each, presence in zip(contexts, presences, strict=True)
            ]
            findings.update(of_platforms(parts))
        await self._noting.note(contexts[0], findings)
        return await self.lookup.used(contexts, presences, use)

    def context(
        self, reference: Reference, target: str | None = None, login: CallerLogin | None = None
    ) -> SyncContext:
        """Gather what a reference's job needs, in all of its targets or only in one.

        Of several platforms it is what the first needs.  Raise PublishError without a target.
        """
        return self.lookup.contexts(reference, target, login)[0]

    def sparing(self, volumes: Iterable[str]) -> AbstractContextManager[None]:
        """Keep retention off these volumes for as long as something is made from them."""
        return self._retention.sparing(volumes)

    async def retain(self, reference: Reference, *, dry_run: bool = False) -> Retained:
        """Delete what retention lets go of a reference; return what became of it."""
        parts = [
            await self._executors.publishing.run(
                context.places, self._retention.apply, context, dry_run=dry_run
            )
            for context in self.lookup.contexts(reference)
        ]
        return Retained(
            tuple(dict.fromkeys(template for part in parts for template in part.gone)),
            tuple(refusal for part in parts for refusal in part.refused),
        )

    async def reap(
        self, place: Place, versions: Iterable[Template], *, dry_run: bool = False
    ) -> Retained:
        """Delete versions of a reference that is gone from a target; return what became of them."""
        target = self._running.targets.get(place.target)
        if target is None:
            error = PublishError(f"there is no [[target]] {place.target!r} any more")
            return Retained(refused=tuple((version, error) for version in versions))
        return await self._executors.publishing.run(
            target.name, self._retention.reap, target, place.reference, versions, dry_run=dry_run
        )

    async def _bring(
        self, contexts: Sequence[SyncContext], findings: dict[str, Finding]
    ) -> Outcome:
        """Publish what the reference means now, for each platform; a fault of one keeps no other.

        `findings` gets what became of each target.
        """
        tally = self._ledger.tally
        top = await tally.step(Step.RESOLVE, self.lookup.resolve(contexts[0]))
        parts: list[dict[str, Finding]] = []
        brought: list[_Brought] = []
        faults: list[SyncdError] = []
        for context in contexts:
            part: dict[str, Finding] = {}
            parts.append(part)
            try:
                brought.append(await self._bring_one(context, top, part))
            except StoppedError:
                raise
            except SyncdError as exc:
                fault = await self._noting.fault(context, exc, is_there=True)
                part.update((t.name, fault) for t in context.targets if t.name not in part)
                faults.append(exc)
        findings.update(of_platforms(parts))
        if faults:
            raise faults[0]
        await self._noting.note(contexts[0], findings)
        outcomes = [
            await self._retain(each.context, each.outcome) if each.is_new else each.outcome
            for each in brought
        ]
        return Outcome.together(outcomes)

    async def _bring_one(
        self, context: SyncContext, top: Descriptor, findings: dict[str, Finding]
    ) -> _Brought:
        """Publish the image of one platform; `findings` gets what became of each target."""
        try:
            known = self.lookup.known(context, top)
            presence = await self._ledger.tally.step(Step.LOOK, known)
        except PublishError:
            presence = None  # a target cannot be asked: publishing tells it apart from the others
        if presence is not None and presence.everywhere:
            findings.update(presence.findings)
            message = f"{top.digest} is published already"
            return _Brought(context, Outcome(Result.UNCHANGED, message, presence.volumes))
        try:
            async with self.lookup.image(context, top) as image:
                await self.vouching.require(context, image)
                await self._provenance.keep(context, top, image)
                async with self._turn(context, image):
                    outcome = await self._publish(context, top, image, findings)
        except NoImageError as exc:
            return _Brought(context, await self._passed_over.add(context, top, exc))
        return _Brought(context, outcome, is_new=True)

    async def _retain(self, context: SyncContext, outcome: Outcome) -> Outcome:
        """Apply retention; return the outcome with what a target refused to delete."""
        retained = await self._ledger.tally.step(
            Step.RETAIN,
            self._executors.publishing.run(context.places, self._retention.apply, context),
        )
        return replace(outcome, warnings=(*outcome.warnings, *retained.warnings))

    def _turn(self, context: SyncContext, image: Image) -> asyncio.Lock:
        """Return the lock by which one image is converted once, however many tags mean it.

        A caller's own jobs share one for each repository: a registry that somebody just named, and
        that brings the bytes slowly, keeps nothing waiting that is watched.
        """
        own = "" if context.login is None else context.reference.name
        return self._turns.setdefault((own, image.manifest_digest), asyncio.Lock())

    async def _publish(
        self, context: SyncContext, top: Descriptor, image: Image, findings: dict[str, Finding]
    ) -> Outcome:
        """Publish the image in each target; one that fails does not keep the others waiting."""
        faults: list[PublishError] = []
        volumes: list[str] = []
        warnings: dict[str, None] = {}
        published = False
        for target in context.targets:
            try:
                held = await self.lookup.held(context, target, top, image)
                found: tuple[str, ...] = ()
                if held is None:
                    held, found = await self._target_sync.bring(context, target, image)
                    warnings.update(dict.fromkeys(found))
                    published |= held.template is not None
                volumes += held.volumes
                findings[target.name] = Current(top.digest, held.volumes, found)
            except PublishError as exc:
                faults.append(exc)
                findings[target.name] = Failed.of(exc)
        if faults:
            raise joined(faults) from faults[0]
        end = "is published" if published else "was there already"
        result = Result.PUBLISHED if published else Result.UNCHANGED
        message = "; ".join([f"{image.digest} {end}", *warnings])
        return Outcome(result, message, tuple(volumes), tuple(warnings), layers=context.layer_bytes)
