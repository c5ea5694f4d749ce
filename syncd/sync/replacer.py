"""A newer image under a container: from a VMID to the container on a fresh root file system.

VMID, MAC, host name, configuration and data volumes stay.  What lay in the old root only, such as
SSH host keys, stays behind in the old root, which is kept as an unused volume.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import structlog

from syncd.errors import RequestError, StillRunningError, StoppedError, SyncdError
from syncd.oci import CallerLogin, Reference
from syncd.sync.container_list import TagMeanings
from syncd.sync.containers import ContainerCreator
from syncd.sync.context import Running
from syncd.sync.engine import SyncEngine
from syncd.sync.executors import Executors
from syncd.sync.job import Cause
from syncd.sync.ledger import Ledger
from syncd.sync.replacement import (
    UNFINISHED,
    BehindOptions,
    Replaced,
    ReplacedBehind,
    Replacement,
    ReplacementState,
    ReplaceOptions,
    SwapWishes,
)
from syncd.sync.selection import LoginOf, configured
from syncd.sync.swap_planner import SwapPlanner, tag_of, use_of
from syncd.sync.swap_run import SwapRun
from syncd.targets import (
    Container,
    ContainerRequest,
    Guest,
    Origin,
    RootHost,
    RootSwap,
)

log = structlog.stdlib.get_logger()

STOPPED = (
    "the container is stopped and stays so: nothing is waited for, and nobody has seen it start "
    "from its new root"
)
"""What a person is told of a container that does not run."""


class RootReplacer:
    """Replaces the roots of containers.  Lives in the worker's event loop."""

    def __init__(
        self,
        running: Running,
        engine: SyncEngine,
        creator: ContainerCreator,
        executors: Executors,
        ledger: Ledger,
    ) -> None:
        self._running = running
        self._engine = engine
        self._creator = creator
        self._executors = executors
        self._ledger = ledger
        self._planner = SwapPlanner(engine, executors)
        self._run = SwapRun(ledger, lambda: running.config.state.paths.locks)

    async def replace(
        self,
        vmid: int,
        options: ReplaceOptions,
        cause: Cause,
        *,
        wait_for: str | None = None,
        carry: tuple[str, ...] | None = None,
        permit: LoginOf = configured,
        within: float | None = None,
    ) -> Replaced:
        """Put an image's present root under a container, fetching the template if it is missing.

        A container that has the image already is left as it is.  With `options.dry_run` nothing is
        changed but that the template is fetched.  `wait_for` takes the place of the options' and
        may name a command.  `carry` are paths to carry over from the old root; without it, the SSH
        host keys are where the host can.  `permit` may raise before the image is asked for.

        Raise RequestError, which names why the root cannot be replaced, PublishError when the
        container had to go back to its old root; else as `SwapRun.carry_out` and
        `ContainerCreator.ensure`.
        """
        wishes = SwapWishes.of(options, wait_for, carry)
        host, guest = await self._found(vmid, options.target)
        image = options.ref or tag_of(guest)
        login = permit(image)
        return await self._replace(
            host, guest, image, wishes, cause=cause, within=within, login=login
        )

    async def replace_behind(
        self,
        options: BehindOptions,
        cause: Cause,
        *,
        wait_for: str | None = None,
        carry: tuple[str, ...] | None = None,
        permit: LoginOf = configured,
        within: float | None = None,
    ) -> ReplacedBehind:
        """Do what `replace` does for each container behind a tag, one after the other.

        The first that cannot be replaced ends the row.  Raise SyncdError where nobody can tell
        which containers are behind.
        """
        wishes = SwapWishes.of(options, wait_for, carry)
        login = permit(options.ref)
        behind = await self.behind(options.ref, options.target)
        replaced: list[Replaced] = []
        for number, (host, vmid) in enumerate(behind):
            try:
                _, guest = await self._found(vmid, host.name)
                act = self._replace(
                    host, guest, options.ref, wishes, cause=cause, within=within, login=login
                )
                replaced.append(await act)
            except StoppedError:
                raise
            except SyncdError as exc:
                left = tuple(vmid for _, vmid in behind[number + 1 :])
                return ReplacedBehind(tuple(replaced), vmid, exc, left)
        return ReplacedBehind(tuple(replaced))

    async def side_by_side(
        self,
        vmid: int,
        options: ReplaceOptions,
        cause: Cause,
        *,
        wait_for: str | None = None,
        permit: LoginOf = configured,
        within: float | None = None,
    ) -> Container:
        """Make a new container of an image beside this one, with its options; return the new one.

        The old one is left as it is, data volumes and address are not taken over.  Raise
        RequestError, which names why not; else as `ContainerCreator.create`.
        """
        waits = wait_for or options.wait_for
        if options.dry_run or waits or options.keep is not None or options.snapshot:
            raise RequestError(
                "a container beside another leaves that one as it is",
                "leave out dry run, snapshot, what is waited for, and how long the old one is kept",
            )
        host, guest = await self._found(vmid, options.target)
        image = options.ref or tag_of(guest)
        login = permit(image)
        twin = await self._executors.looking.run(host.name, host.roots.twin, guest)
        named = {"ref": str(image), "target": host.name, "start": guest.running}
        request = ContainerRequest.parse({**twin.fields, **named})
        made = await self._creator.create(request, cause, within=within, login=login)
        return replace(made, warnings=(*made.warnings, *twin.warnings))

    async def behind(
        self, image: Reference, target: str | None = None
    ) -> list[tuple[RootHost, int]]:
        """Return the containers whose description names this tag and another digest than its own.

        Raise SyncdError when registry or cluster cannot be asked.
        """
        hosts = self._hosts(target)
        listed = [await self._executors.looking.run(host.name, host.containers) for host in hosts]
        of_tag = [
            (host, found)
            for host, containers in zip(hosts, listed, strict=True)
            for found in containers
            if found.origin and found.origin.tagged == image
        ]
        if not of_tag:  # is there such a tag at all?
            await self._engine.lookup.manifest_of(image, self._engine.context(image).platform)
        tags, behind = TagMeanings(self._engine), []
        for host, found in of_tag:
            meaning = await tags.of(host, found)
            if isinstance(meaning, SyncdError) and not isinstance(meaning, RequestError):
                raise meaning
            # What runs on no node is among them, so that its turn tells why it is not replaced.
            if found.origin and found.origin.image.digest != meaning:
                behind.append((host, found.vmid))
        return behind

    async def resume(self) -> list[Replacement]:
        """Finish or undo every replacement that a process left; return each as it is then.

        One that cannot be ended now, or that another process works on, is logged and left; its
        reason says why.
        """
        ended = []
        for left in await self._executors.ledger(self._ledger.replacements.of, *UNFINISHED):
            host = self._running.targets.get(left.target)
            if not isinstance(host, RootHost):
                log.error("replacement left", vmid=left.swap.vmid, target=left.target)
                reason = f"no cluster is configured as target {left.target!r}"
                ended.append(replace(left, reason=reason))
                continue
            try:
                context = self._engine.context(Reference.parse(left.swap.image), host.name)
                act = self._executors.creating.run(
                    self._run.resume, left, host.roots, context.progress
                )
                ended.append(await act)
            except StillRunningError as exc:
                log.info("not resumed", vmid=left.swap.vmid, reason=str(exc))
                ended.append(replace(left, reason=str(exc)))
            except SyncdError as exc:
                log.error("not resumed", vmid=left.swap.vmid, error=str(exc))
                ended.append(replace(left, reason=str(exc)))
        return ended

    async def remove_due(self) -> list[Replacement]:
        """Destroy the old roots that were kept long enough; return their replacements."""
        removed = []
        states = (ReplacementState.REPLACED,)
        for done in await self._executors.ledger(self._ledger.replacements.of, *states):
            host = self._running.targets.get(done.target)
            if done.due is None or done.due > datetime.now(UTC) or not isinstance(host, RootHost):
                continue
            try:
                removed.append(
                    await self._executors.creating.run(self._run.remove_old, done, host.roots)
                )
            except SyncdError as exc:
                log.warning("old root not removed", vmid=done.swap.vmid, error=str(exc))
        return removed

    async def _replace(
        self,
        host: RootHost,
        guest: Guest,
        image: Reference,
        wishes: SwapWishes,
        *,
        cause: Cause,
        within: float | None,
        login: CallerLogin | None,
    ) -> Replaced:
        use = use_of(guest)
        volumes = await self._creator.ensure(
            image, cause, target=host.name, within=within, use=use, login=login
        )
        with self._engine.sparing(volumes):
            wanted = await self._planner.wanted(host, image, use)
            origin = Origin.parse(guest.description)
            if origin is not None and origin.image == wanted:
                return Replaced(guest.vmid, guest.node, str(wanted), host.name, None, done=True)
            swap = await self._planner.plan(
                host, guest, wanted, volumes, wishes.carry, snapshot=wishes.snapshot
            )
            if not wishes.dry_run:
                replacement = Replacement(
                    host.name, swap, readiness=wishes.readiness, keep=wishes.keep
                )
                progress = self._engine.context(image, host.name).progress
                act = self._executors.creating.run(
                    self._run.carry_out, replacement, host.roots, progress
                )
                swap = (await act).swap
                log.info("replaced", vmid=guest.vmid, node=swap.node, image=swap.image)
        return Replaced(
            guest.vmid,
            swap.node,
            swap.image,
            host.name,
            swap,
            done=not wishes.dry_run,
            warnings=(
                *swap.warnings,
                _lost(swap, dry_run=wishes.dry_run),
                *([] if guest.running else [STOPPED]),
            ),
        )

    def _hosts(self, target: str | None) -> list[RootHost]:
        """Return the clusters, or the named one; raise RequestError where there is none."""
        hosts = [host for host in self._running.targets.values() if isinstance(host, RootHost)]
        found = [host for host in hosts if target in (None, host.name)]
        if not found:
            raise RequestError(
                f"no target named {target!r:.80} has containers"
                if target
                else "no target has containers",
                'add a [[target]] of type "proxmox"',
            )
        return found

    async def _found(self, vmid: int, target: str | None) -> tuple[RootHost, Guest]:
        """Find a container; raise RequestError where no cluster, or more than one, has it."""
        found = []
        for host in self._hosts(target):
            guest = await self._executors.looking.run(host.name, host.roots.guest, vmid)
            if guest is not None:
                found.append((host, guest))
        if not found:
            raise RequestError(
                f"there is no container {vmid} that the token sees", "the token needs VM.Audit"
            )
        if len(found) > 1:
            names = ", ".join(host.name for host, _ in found)
            raise RequestError(f"several clusters have a container {vmid}", f"name one: {names}")
        ((host, guest),) = found
        return host, await self._described(host, guest)

    async def _described(self, host: RootHost, guest: Guest) -> Guest:
        """Return a container with the description that its root had.

        Who puts an old root back, by a rollback or by hand, does not put the description back:
        Proxmox VE keeps it (`__snapshot_apply_config` of PVE::AbstractConfig).
        """
        ended = await self._executors.ledger(
            self._ledger.replacements.of, ReplacementState.REPLACED, ReplacementState.CLOSED
        )
        of_guest = (host.name, guest.vmid)
        # The last one only: the name of a root that was destroyed is given to later volumes.
        for done in ended[::-1]:
            if (done.target, done.swap.vmid) == of_guest:
                origin = Origin.parse(guest.description)
                named = origin is not None and str(origin.image) == done.swap.image
                if named and guest.root == done.swap.old_volume:
                    return replace(guest, description=done.swap.before.get("description") or "")
                break
        return guest


def _lost(swap: RootSwap, *, dry_run: bool) -> str:
    """Return what a person is told before and after a replacement."""
    but = f"but for {', '.join(swap.carry)}" if swap.carry else "SSH host keys among it"
    name = "NAME" if dry_run else swap.snapshot
    back = (
        f"pct rollback {swap.vmid} {name} brings back root and data volumes as they were before, "
        "at the price of what is written since"
        if swap.snapshot
        else "what the new software writes into data volumes is not taken back when the old root "
        "returns"
    )
    return f"what lived outside volumes, {but}, stays in the old root; {back}"
