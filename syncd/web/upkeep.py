"""Upkeep over HTTP: which daemon this is, and whether all is well; pins, deletions, comparisons.

It is what the commands of upkeep ask of a running daemon.
"""

from __future__ import annotations

import os
from datetime import timedelta

from aiohttp import web

from syncd import __version__
from syncd.errors import RequestError, UnknownVolumeError
from syncd.sync import examined_json, pruned_json, verified_json, verify_all
from syncd.web.answers import (
    CheckedAnswer,
    CheckView,
    DaemonAnswer,
    PinnedAnswer,
    PrunedAnswer,
    VerifiedAnswer,
)
from syncd.web.backend import Backend
from syncd.web.callers import CALLER
from syncd.web.requests import PinRequest, PruneRequest, VerifyRequest, json_object


class Upkeep:
    """The routes of upkeep below `/api/v1`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        """Return what is answered here."""
        return [
            web.get("/api/v1/daemon", self.daemon),
            web.get("/api/v1/check", self.check),
            web.post("/api/v1/pin", self.pin),
            web.post("/api/v1/prune", self.prune),
            web.post("/api/v1/verify", self.verify),
        ]

    async def daemon(self, _: web.Request) -> web.Response:
        """Tell which daemon answers."""
        file = self._backend.config_file
        return web.json_response(
            DaemonAnswer(
                version=__version__,
                pid=os.getpid(),
                uid=os.geteuid(),
                state=str(self._backend.live.config.state.directory.absolute()),
                config=str(file.absolute()) if file else None,
            )
        )

    async def check(self, _: web.Request) -> web.Response:
        """Look at everything, and answer when that is done."""
        found = await self._backend.check()
        results = [CheckView(ok=one.ok, subject=one.subject, detail=one.detail) for one in found]
        return web.json_response(CheckedAnswer(results=results))

    async def pin(self, request: web.Request) -> web.Response:
        """Have retention spare a template, or judge it again."""
        wanted = PinRequest.parse(await json_object(request))
        pin = self._backend.ledger.pin
        known = await self._backend.executors.ledger_soon(pin, wanted.volume, pinned=wanted.pinned)
        if not known:
            raise UnknownVolumeError(wanted.volume)
        return web.json_response(PinnedAnswer(volume=wanted.volume, pinned=wanted.pinned))

    async def prune(self, request: web.Request) -> web.Response:
        """Delete the versions that retention lets go, or what is left of tags that are gone."""
        wanted = PruneRequest.parse(await json_object(request))
        reaper = self._backend.reaper
        if wanted.gone:
            span = timedelta(seconds=wanted.older_than)
            retained = await reaper.reap(span, dry_run=wanted.dry_run)
        elif wanted.older_than:
            raise RequestError("older_than goes together with gone")
        else:
            retained = await reaper.retain(dry_run=wanted.dry_run)
        return web.json_response(
            PrunedAnswer(
                pruned=[*map(pruned_json, retained.gone)],
                spared=[*map(pruned_json, retained.spared)],
                warnings=retained.warnings,
            )
        )

    async def verify(self, request: web.Request) -> web.Response:
        """Compare what is published with the ledger, and answer when that is done."""
        wanted = VerifyRequest.parse(await json_object(request))
        backend, config = self._backend, self._backend.live.config
        found, examined = await verify_all(
            config, backend.engine, backend.verifier, wanted.ref, request[CALLER].may_know(config)
        )
        return web.json_response(
            VerifiedAnswer(
                verified=[*map(verified_json, found)], images=[*map(examined_json, examined)]
            )
        )
