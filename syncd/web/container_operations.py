"""The operations about containers, as rows of the table of operations."""

from __future__ import annotations

from syncd.sync import (
    BehindOptions,
    ContainerView,
    ReplacedBehindView,
    ReplacedView,
    ReplaceOptions,
)
from syncd.targets import ContainerRequest
from syncd.web.answers import ContainersAnswer, ErrorAnswer
from syncd.web.operation import CODED, JSON, SLOW, TOO_LARGE, Answer, Operation, Parameter

IDEMPOTENCY_KEY = "[!-~]{1,255}"
"""The pattern of the header of this name."""

CONTAINER_OPERATIONS = (
    Operation(
        "get",
        "/api/v1/containers",
        "listContainers",
        "api",
        "List the containers that syncd made, and which are behind their tag",
        parameters=(
            Parameter(
                "all",
                "query",
                "Whether to look at every container, also for those that another syncd made.",
                {"type": "string", "enum": ["0", "1", "true", "yes"], "default": "0"},
                required=False,
            ),
        ),
        answers={
            200: Answer("The containers.", ContainersAnswer),
            400: Answer("`all` is neither yes nor no."),
            502: Answer("A target refuses to tell."),
        },
    ),
    Operation(
        "post",
        "/api/v1/containers",
        "createContainer",
        "api",
        "Make a container from an image",
        description="Fetches and publishes the image first if it is not cached as it is now, and "
        "answers when the container exists. The keys are named as Proxmox VE names them.",
        parameters=(
            Parameter(
                "Idempotency-Key",
                "header",
                "Stands for this request: asked again with the same key within 90 days, also after "
                "a restart of syncd, the answer is the same and no second container is made.",
                {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY}$"},
                required=False,
            ),
        ),
        body={JSON: ContainerRequest},
        answers={
            201: Answer("The container.", ContainerView),
            400: Answer(
                "The body is not as described, or names what the configuration does not have; "
                "every fault is told, with its key."
            ),
            404: Answer("The registry does not have the image."),
            408: SLOW,
            413: TOO_LARGE,
            415: CODED,
            422: Answer("The Idempotency-Key came with another body before."),
            502: Answer(
                "The image could not be fetched, or Proxmox VE refused or failed; the end of its "
                "log is told."
            ),
            504: Answer("The image is still being fetched; no container was made."),
        },
    ),
    Operation(
        "post",
        "/api/v1/containers/replace",
        "replaceBehind",
        "api",
        "Put the newer image of a tag under every container that is behind it",
        description="One container at a time, each as replaceContainer does it; the first that "
        "cannot be replaced ends the row.",
        body={JSON: BehindOptions},
        answers={
            200: Answer("Every container that was behind.", ReplacedBehindView),
            400: Answer("The body is not as described; every fault is told, with its key."),
            404: Answer("The registry does not have the image."),
            408: SLOW,
            413: TOO_LARGE,
            415: CODED,
            502: Answer(
                "A container could not be replaced, or went back to its old root; or a target "
                "refuses to tell.",
                ReplacedBehindView | ErrorAnswer,
            ),
        },
    ),
    Operation(
        "post",
        "/api/v1/containers/{vmid}/replace",
        "replaceContainer",
        "api",
        "Put a newer image under a container",
        description="VMID, MAC, host name, configuration and data volumes stay; the old root file "
        "system is kept as an unused volume. Answers when the container is ready, or has gone "
        "back to its old root. A container that has the image already is left as it is.",
        parameters=(
            Parameter("vmid", "path", "The container's VMID.", {"type": "integer", "minimum": 100}),
        ),
        body={JSON: ReplaceOptions},
        body_required=False,
        answers={
            200: Answer(
                "The container has its new root, or the steps where those were asked for.",
                ReplacedView,
            ),
            201: Answer("The new container, where it was to stand beside the old.", ContainerView),
            400: Answer(
                "The body is not as described, or the root cannot be replaced; the reason is named."
            ),
            404: Answer("The registry does not have the image."),
            408: SLOW,
            413: TOO_LARGE,
            415: CODED,
            502: Answer(
                "The image could not be fetched, or the container went back to its old "
                "root; or the replacement is not finished, which the error says."
            ),
            504: Answer("The image is still being fetched, or the container is being replaced."),
        },
    ),
)
