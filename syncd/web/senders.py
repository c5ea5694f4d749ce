"""The entrances for every sender but GitHub: verify, slow down who guesses, write down, answer.

A secret that a header or the path shows is compared before a body is read, one that signs the body
after that.  The path may be a secret, so it is neither logged nor part of an answer.
"""

from __future__ import annotations

from aiohttp import web

from syncd.config import SenderSettings
from syncd.events import Call, Sender
from syncd.web.backend import Backend
from syncd.web.bodies import BODIES
from syncd.web.entrance import Answered, Entrance

_WRONG = "the secret or signature is missing or wrong; docs/senders.md says where it belongs"


def path_of(sender: Sender) -> str:
    """Return where a sender calls, with `{secret}` where its secret stands in the path."""
    return f"/webhooks/{sender.name}" + ("/{secret}" if sender.in_path else "")


class SenderEntrance:
    """The path of one kind of sender."""

    def __init__(self, backend: Backend, sender: Sender) -> None:
        self._backend = backend
        self._sender = sender
        self._entrance = Entrance(backend, sender.name)

    def routes(self) -> list[web.RouteDef]:
        """Return what this entrance answers to."""
        return [web.post(path_of(self._sender), self.receive)]

    async def receive(self, request: web.Request) -> web.Response:
        """Answer one delivery; one that cannot be written down now is to be delivered again."""
        return await self._entrance.receive(request, self._read)

    async def _read(self, request: web.Request) -> Answered:
        sender, known = self._sender, self._secrets()
        if not known:
            return 503, {"error": f'no [[sender]] of type "{sender.name}" is configured'}
        self._entrance.admit(request)
        key = request.match_info.get("secret", "")
        if not sender.signs:
            settings = self._authentic(request, Call(request.headers, key=key), known)
        async with request.app[BODIES].read(request) as body:
            call = Call(request.headers, body, key)
            if sender.signs:
                settings = self._authentic(request, call, known)
            notice = sender.read(call, settings.registry or "")
        # The ledger has one table for the ids of all: no sender may use up another one's.
        whose = " ".join(filter(None, (sender.name, settings.registry)))
        delivery = None if notice.id is None else f"{whose} {notice.id}"
        return await self._entrance.accept(delivery, notice.event, notice.pushed)

    def _secrets(self) -> list[tuple[SenderSettings, str]]:
        """Return who may call here, with each one's secret; raise ConfigError for a lost one."""
        settings = self._backend.live.config.senders_of(self._sender.name)
        return [(each, secret) for each in settings if (secret := each.secret())]

    def _authentic(
        self, request: web.Request, call: Call, known: list[tuple[SenderSettings, str]]
    ) -> SenderSettings:
        """Return which sender calls; raise HTTPUnauthorized, or HTTPTooManyRequests to slow it."""
        caller: SenderSettings | None = None
        for settings, secret in known:
            if self._sender.is_authentic(call, secret):
                caller = settings
        if caller is None:
            raise self._entrance.wrong(request, _WRONG)
        self._entrance.right(request)
        return caller
