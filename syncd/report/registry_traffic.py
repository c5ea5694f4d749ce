"""The traffic with registries, counted under the registries that the configuration names."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus

from syncd.config import Config
from syncd.report.total_metrics import OTHER
from syncd.sync import Counted, Tally

_CODES = frozenset(status.value for status in HTTPStatus)
NO_ANSWER = "none"
"""The code of a request that nothing answered."""


def configured_registries(config: Config) -> frozenset[str]:
    """Return the hosts of the registries that a configuration names."""
    images = {image.reference.registry for image in config.image}
    named = {registry.host for registry in config.registry}
    mirrors = {mirror.host for host in named for mirror, _ in config.mirrors_of(host)}
    return frozenset(images | named | mirrors)


class RegistryTraffic:
    """Counts the requests to one registry.  Safe to use from several threads.

    A registry that is not among the `configured` ones, such as one that an API's caller asks for,
    is counted as `other`, and so is a code that HTTP does not know: else strangers made labels.
    """

    def __init__(self, tally: Tally, configured: Collection[str], host: str) -> None:
        self._tally = tally
        self._label = host if host in configured else OTHER

    def answered(self, code: int | None, seconds: float) -> None:
        """Count a request, which got its headers after so long, or no answer."""
        known = NO_ANSWER if code is None else str(code) if code in _CODES else OTHER
        self._tally.add(Counted.REQUESTS, self._label, known)
        if code is not None:
            self._tally.observe(Counted.REQUEST_SECONDS, self._label, seconds=seconds)

    def received(self, amount: int) -> None:
        """Count bytes of a document or blob."""
        self._tally.add(Counted.FETCHED, self._label, amount=amount)

    def waited(self, seconds: float) -> None:
        """Count a wait before the next request."""
        self._tally.add(Counted.WAITED, self._label, amount=seconds)
