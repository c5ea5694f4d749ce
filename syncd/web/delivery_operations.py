"""The operations of HTTP for senders of events, as a table: one for GitHub, one for each other."""

from __future__ import annotations

from syncd.events import SENDERS, Sender
from syncd.web.answers import AcceptedAnswer, IgnoredAnswer, PongAnswer
from syncd.web.operation import CODED, JSON, SLOW, TOO_LARGE, Answer, Operation, Parameter
from syncd.web.senders import path_of

_FORM = {
    "type": "object",
    "properties": {"payload": {"type": "string", "description": "The JSON."}},
    "required": ["payload"],
}
_NAME = {"type": "string", "minLength": 1, "maxLength": 200}
_SECRET = {"type": "string", "minLength": 1}
_SIGNATURE = {"type": "string", "pattern": "^sha256=[0-9a-f]{64}$"}
_TAKEN = {
    202: Answer("The delivery was taken, or ignored.", AcceptedAnswer | IgnoredAnswer),
    400: Answer("The body or its headers are no delivery."),
    408: SLOW,
    413: TOO_LARGE,
    415: CODED,
    417: Answer("The request expects something but 100-continue."),
    503: Answer(
        "No secret is configured, other bodies take all the room, or the delivery cannot "
        "be written down now."
    ),
}

_SLOWED = Answer("Many wrong secrets came from this address; Retry-After tells how long.")

_GITHUB = Operation(
    "post",
    "/webhooks/github",
    "receiveDelivery",
    "webhook",
    "Receive one delivery of a GitHub webhook",
    description="The jobs of a delivery are in the ledger before the answer. A delivery that "
    "came before leads to the same jobs again, and to no new ones.",
    parameters=(
        Parameter(
            "X-Hub-Signature-256",
            "header",
            "sha256= and the HMAC of the raw body with the shared secret.",
            _SIGNATURE,
        ),
        Parameter("X-GitHub-Delivery", "header", "The delivery's id.", _NAME),
        Parameter(
            "X-GitHub-Event",
            "header",
            "The event: ping, package, registry_package, package_v2 or workflow_run; others "
            "are ignored.",
            _NAME,
        ),
    ),
    body={JSON: {"type": "object"}, "application/x-www-form-urlencoded": _FORM},
    body_description="At most 25 MiB.",
    answers={
        200: Answer("A ping was understood.", PongAnswer),
        401: Answer("The signature is missing or wrong."),
        403: Answer("No deliveries are taken from this address (server.hook_addresses)."),
        429: _SLOWED,
        **_TAKEN,
    },
)

_AUTHORIZATION = Parameter(
    "Authorization",
    "header",
    "The secret itself, Bearer and the secret, or Basic with the secret as the password.",
    _SECRET,
)
_PARAMETERS: dict[str, tuple[Parameter, ...]] = {
    "distribution": (
        _AUTHORIZATION,
        Parameter("Ce-Type", "header", "The event of a CloudEvent.", _NAME, required=False),
        Parameter("Ce-Id", "header", "The id of a CloudEvent.", _NAME, required=False),
        Parameter("Ce-Source", "header", "Who sent a CloudEvent.", _NAME, required=False),
    ),
    "harbor": (_AUTHORIZATION,),
    "gitea": (
        Parameter(
            "X-Gitea-Signature",
            "header",
            "The HMAC-SHA256 of the raw body; in place of each of these, X-Forgejo-... will do.",
            {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        ),
        Parameter("X-Gitea-Delivery", "header", "The delivery's id.", _NAME),
        Parameter("X-Gitea-Event", "header", "The event: package; others are ignored.", _NAME),
    ),
    "generic": (
        Parameter(
            "X-Syncd-Signature-256",
            "header",
            "sha256= and the HMAC of the raw body with the secret.",
            _SIGNATURE,
        ),
        Parameter(
            "X-Syncd-Delivery",
            "header",
            "The delivery's id: with one, a delivery that is repeated leads to the same jobs.",
            _NAME,
            required=False,
        ),
    ),
}
_KEY = (Parameter("secret", "path", "The secret: the sender has no other place for it.", _SECRET),)
_TITLES = {
    "distribution": "distribution, GitLab's registry or zot",
    "harbor": "Harbor",
    "quay": "Quay",
    "dockerhub": "Docker Hub",
    "gitea": "Gitea or Forgejo",
    "generic": "anything that can sign",
}
_BODIES = {
    "distribution": ("application/vnd.docker.distribution.events.v2+json", JSON),
    "harbor": (JSON, "application/cloudevents+json"),
}
_GENERIC_BODY = {
    "type": "object",
    "properties": {
        "repository": {
            "type": "string",
            "description": "The repository; without its registry if the [[sender]] names that.",
        },
        "tag": {"type": ["string", "null"], "description": "The tag; it may be left out."},
    },
    "required": ["repository"],
}


def _operation(sender: Sender) -> Operation:
    kinds = _BODIES.get(sender.name, (JSON,))
    schema = _GENERIC_BODY if sender.name == "generic" else {"type": "object"}
    return Operation(
        "post",
        path_of(sender),
        f"receive{sender.name.capitalize()}",
        "webhook",
        f"Receive one delivery of {_TITLES[sender.name]}",
        description="Needs a [[sender]] of this type; the event says where to look again, and "
        f"never what to fetch. What is sent: {sender.documentation}",
        parameters=_KEY if sender.in_path else _PARAMETERS[sender.name],
        body=dict.fromkeys(kinds, schema),
        body_description="At most 25 MiB, whatever its Content-Type is.",
        answers={
            401: Answer("The secret or signature is missing or wrong."),
            429: _SLOWED,
            **_TAKEN,
        },
    )


DELIVERY_OPERATIONS = (_GITHUB, *map(_operation, SENDERS))
