"""HTTP: deliveries of senders, the API, the status page, as one aiohttp application.

A request only starts work or waits for work that it asked for; what is not authenticated is bounded
in size, number and time.
"""

from syncd.web.app import application, http_runner
from syncd.web.backend import HttpLimits
from syncd.web.callers import members_group
from syncd.web.openapi import api_description
from syncd.web.peers import Seldom

__all__ = [
    "HttpLimits",
    "Seldom",
    "api_description",
    "application",
    "http_runner",
    "members_group",
]
