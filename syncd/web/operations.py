"""The operations of HTTP, as a table: what each takes, and what each answers with which status."""

from __future__ import annotations

from syncd.targets import REFERENCE_SCHEMA
from syncd.web.answers import (
    ForeseenAnswer,
    HealthAnswer,
    ImagesAnswer,
    ReadinessAnswer,
    ResolvedAnswer,
    SubmittedAnswer,
)
from syncd.web.container_operations import CONTAINER_OPERATIONS
from syncd.web.delivery_operations import DELIVERY_OPERATIONS
from syncd.web.job_operations import JOB_OPERATIONS
from syncd.web.operation import (
    CODED,
    FAULT,
    JSON,
    MISDIRECTED,
    SLOW,
    TOO_LARGE,
    Answer,
    Operation,
    Parameter,
)
from syncd.web.requests import ResolveRequest, SyncRequest
from syncd.web.upkeep_operations import UPKEEP_OPERATIONS

OPERATIONS = (
    *DELIVERY_OPERATIONS,
    Operation(
        "post",
        "/api/v1/sync",
        "sync",
        "api",
        "Look at references now",
        description="Answers at once; the jobs go on. A reference that waits already keeps its "
        "job. Without a body, everything watched is looked at.",
        body={JSON: SyncRequest},
        body_required=False,
        answers={
            200: Answer("With dry_run: how jobs would end.", ForeseenAnswer),
            202: Answer("The jobs that look at the references.", SubmittedAnswer),
            400: Answer("The body is not as described; every fault is told, with its key."),
            408: SLOW,
            413: TOO_LARGE,
            415: CODED,
        },
    ),
    *JOB_OPERATIONS,
    Operation(
        "get",
        "/api/v1/images",
        "listImages",
        "api",
        "List what is watched, its conditions, and every published template",
        answers={200: Answer("What is watched and published.", ImagesAnswer)},
    ),
    Operation(
        "get",
        "/api/v1/resolve",
        "resolve",
        "api",
        "Tell the volume ids of a reference, as its tag is now",
        parameters=(
            Parameter(
                "ref",
                "query",
                "The reference; without a tag or digest, latest.",
                REFERENCE_SCHEMA,
            ),
            Parameter(
                "pull",
                "query",
                "Whether to fetch the image first if it is not cached, and wait for that; this "
                "needs the scope sync.",
                {"type": "string", "enum": ["0", "1", "true", "yes"], "default": "0"},
                required=False,
            ),
            Parameter(
                "node",
                "query",
                "The node that the template is for: of several platforms, the one that runs there.",
                {"type": "string"},
                required=False,
            ),
        ),
        answers={
            200: Answer("Where the image lies.", ResolvedAnswer),
            400: Answer(
                "That is no reference, `pull` is neither yes nor no, or no platform runs there."
            ),
            404: Answer("The image is not cached as it is now, or the registry does not have it."),
            502: Answer("The image could not be fetched, or a target refuses."),
            504: Answer("The image is still being fetched."),
        },
    ),
    Operation(
        "post",
        "/api/v1/resolve",
        "resolveBy",
        "api",
        "Tell the volume ids of an image that the caller opens",
        description="As resolve does; the registry is asked with the credentials of the body "
        "before anything is told, whatever is cached. They are held in memory for this request and "
        "its job alone: never written, never logged, never used for anybody else. A stop of syncd "
        "ends the job as interrupted. What such a job published is told to whoever proves to the "
        "registry that the image is theirs to have, and to the holder of the API's token.",
        body={JSON: ResolveRequest},
        answers={
            200: Answer("Where the image lies.", ResolvedAnswer),
            400: Answer("The body is not as described; every fault is told, with its key."),
            404: Answer("The image is not cached as it is now, or the registry does not have it."),
            408: SLOW,
            413: TOO_LARGE,
            415: CODED,
            502: Answer("The image could not be fetched, or a target refuses."),
            504: Answer("The image is still being fetched."),
        },
    ),
    *CONTAINER_OPERATIONS,
    *UPKEEP_OPERATIONS,
    Operation(
        "get",
        "/api/v1/openapi.json",
        "describe",
        "api",
        "Describe this API",
        answers={
            200: Answer(
                "This document.", {"type": "object", "required": ["openapi", "info", "paths"]}
            )
        },
    ),
    Operation(
        "get",
        "/healthz",
        "isHealthy",
        "state",
        "Tell that the process answers",
        answers={200: Answer("The process answers.", HealthAnswer)},
    ),
    Operation(
        "get",
        "/readyz",
        "isReady",
        "state",
        "Tell that the ledger can be read",
        answers={
            200: Answer("The ledger can be read.", ReadinessAnswer),
            500: FAULT,
            503: Answer("The ledger gives no answer in time."),
        },
    ),
    Operation(
        "get",
        "/metrics",
        "getMetrics",
        "state",
        "Give the metrics in Prometheus' text format",
        answers={
            200: Answer("The metrics.", {"type": "string"}, "text/plain"),
            421: MISDIRECTED,
            503: Answer("Too many read this now."),
        },
    ),
    Operation(
        "get",
        "/",
        "getPage",
        "state",
        "Show to a person what is watched, what fails, and what runs",
        parameters=(
            Parameter(
                "q",
                "query",
                "Words, of which the first 200 characters count; only the watched tags are shown "
                "that have each of them.",
                {"type": "string"},
                required=False,
            ),
        ),
        answers={
            200: Answer("The page.", {"type": "string"}, "text/html"),
            421: MISDIRECTED,
            500: FAULT,
            503: Answer("Too many read this now, or the ledger gives no answer in time."),
        },
    ),
)
