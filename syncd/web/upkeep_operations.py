"""The operations of upkeep, as rows of the table in `syncd.web.operations`."""

from __future__ import annotations

from syncd.web.answers import (
    CheckedAnswer,
    DaemonAnswer,
    PinnedAnswer,
    PrunedAnswer,
    VerifiedAnswer,
)
from syncd.web.operation import CODED, JSON, SLOW, TOO_LARGE, Answer, Operation
from syncd.web.requests import PinRequest, PruneRequest, VerifyRequest

_WRONG = Answer("The body is not as described; every fault is told, with its key.")

UPKEEP_OPERATIONS = (
    Operation(
        "get",
        "/api/v1/daemon",
        "getDaemon",
        "api",
        "Tell which daemon answers",
        answers={200: Answer("Its version, process, state and configuration.", DaemonAnswer)},
    ),
    Operation(
        "get",
        "/api/v1/check",
        "check",
        "api",
        "Look at secrets, registries, targets, clock, room and schedule, as the service sees them",
        description="The configuration's file is looked at as it is now. Answers when every "
        "registry and target has answered, or its time is over.",
        answers={200: Answer("What is usable and what is not.", CheckedAnswer)},
    ),
    Operation(
        "post",
        "/api/v1/pin",
        "pin",
        "api",
        "Have retention spare a template, or judge it again",
        body={JSON: PinRequest},
        answers={
            200: Answer("It is pinned, or not any more.", PinnedAnswer),
            400: _WRONG,
            404: Answer("syncd published no such volume."),
            408: SLOW,
            413: TOO_LARGE,
            415: CODED,
        },
    ),
    Operation(
        "post",
        "/api/v1/prune",
        "prune",
        "api",
        "Delete the versions that retention lets go, or what is left of tags that are gone",
        description="Never a pinned template, and never because a registry cannot be asked.",
        body={JSON: PruneRequest},
        body_required=False,
        answers={
            200: Answer("What was deleted, and what could not be.", PrunedAnswer),
            400: _WRONG,
            408: SLOW,
            413: TOO_LARGE,
            415: CODED,
            502: Answer("A target refuses to tell."),
        },
    ),
    Operation(
        "post",
        "/api/v1/verify",
        "verify",
        "api",
        "Compare what is published with the recorded digests",
        description="Reads every file that this host can read, and answers when that is done.",
        body={JSON: VerifyRequest},
        body_required=False,
        answers={
            200: Answer("What each file was found to be, and who signed.", VerifiedAnswer),
            400: _WRONG,
            404: Answer("syncd published nothing of the reference."),
            408: SLOW,
            413: TOO_LARGE,
            415: CODED,
            502: Answer("A target is not configured any more."),
        },
    ),
)
