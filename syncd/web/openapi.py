"""The description of HTTP in the form of OpenAPI 3.1, built from the types of requests and answers.

Nothing is described twice: the schemas come from the models that check requests and from the types
that answers are made of, the rest from the table of operations.
Source: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from syncd.web.answers import ErrorAnswer
from syncd.web.operation import Answer, Operation, Parameter
from syncd.web.operations import OPERATIONS
from syncd.web.scopes import needed

_HEAD: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "syncd",
        "version": "1",
        "summary": "Keeps Proxmox VE's template storage in step with a container registry.",
        "description": "What is below /api needs a bearer token with the scope that security "
        "names. The token of server.read_token_file has the scope read; that of "
        "server.sync_token_file also has sync; that of server.create_token_file also has create; "
        "that of server.api_token_file has these and upkeep. Over the "
        "daemon's Unix socket (server.socket) the user counts instead: root and the service's own "
        "user have every scope, members of the group syncd have read and sync; "
        "anybody else gets 403. What is not watched is for the scope create, and over the network "
        "only where server.on_demand allows it: else 403. HEAD is answered where GET is. "
        "Each error below /api "
        "is JSON with one key, error, whose sentence says what happened, where, and what to do: "
        "also 404 for an unknown path and 405 for a wrong method. A JSON body is read whatever "
        "its Content-Type is.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "servers": [{"url": "/"}],
    "tags": [
        {"name": "api", "description": "For scripts; needs the bearer token."},
        {"name": "webhook", "description": "For senders of events; each needs its secret."},
        {"name": "state", "description": "For probes, Prometheus and people; needs nothing."},
    ],
}
_SECURITY = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token, whose scopes are read, sync, create and upkeep: see the "
        "description of this API.",
    }
}
_GUARDED = {
    401: ("Unauthorized", Answer("The bearer token is missing or wrong.")),
    403: (
        "Forbidden",
        Answer(
            "The token, or over the Unix socket the user, lacks the scope that the error names; "
            "or the reference is not watched, and server.on_demand does not allow it; or its "
            "registry is at no public address, and the configuration does not name it."
        ),
    ),
    417: ("Unexpected", Answer("The request expects something but 100-continue.")),
    421: (
        "Misdirected",
        Answer("The Host is no name of this server: see server.names of the configuration."),
    ),
    429: (
        "Slowed",
        Answer("Many wrong tokens came from this address; Retry-After tells how long to wait."),
    ),
    500: (
        "Fault",
        Answer("A registry refuses, the ledger or local disk cannot be used, or syncd fails."),
    ),
    503: (
        "Unavailable",
        Answer("No token is configured, or a registry, target or the ledger gives no answer now."),
    ),
}
_CHALLENGE = {
    "WWW-Authenticate": {
        "description": "Says that a bearer token is wanted.",
        "schema": {"type": "string"},
    }
}


class _Schemas(GenerateJsonSchema):
    """JSON schemas without what only repeats a field's name or says that it may be left out."""

    def field_title_should_be_set(self, _: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        if described.get("default") in (None, []):
            described.pop("default", None)
        return described

    def normalize_name(self, name: str) -> str:
        return re.sub("(View|Answer)$", "", super().normalize_name(name))


@functools.cache
def api_description() -> dict[str, Any]:
    """Return the document, made once: whoever gets it leaves it as it is."""
    found, definitions = TypeAdapter.json_schemas(
        [(body, "validation", TypeAdapter(body)) for body in _types()],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schemas,
    )
    schemas = {body: schema for (body, _), schema in found.items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, schemas)
    responses = {name: _answer(answer, schemas) for name, answer in _GUARDED.values()}
    responses["Unauthorized"]["headers"] = _CHALLENGE
    return {
        **_HEAD,
        "paths": paths,
        "components": {
            "securitySchemes": _SECURITY,
            "responses": responses,
            # The title of a definition is its class's name, which its key says already.
            "schemas": {
                name: {key: value for key, value in schema.items() if key != "title"}
                for name, schema in definitions["$defs"].items()
            },
        },
    }


def _types() -> set[Any]:
    """Return every type that is a body of a request or an answer."""
    types: set[Any] = {ErrorAnswer}
    for operation in OPERATIONS:
        bodies = [*operation.body.values(), *(a.body for a in operation.answers.values())]
        types.update(body for body in bodies if not isinstance(body, Mapping))
    return types


def _operation(operation: Operation, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    answers = {
        str(status): _answer(answer, schemas) for status, answer in operation.answers.items()
    }
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": answers,
    }
    if operation.tag == "api":
        scope = needed(operation.method, operation.path)
        described["security"] = [{"token": [scope]}]
        for status, (name, _) in _GUARDED.items():
            answers[str(status)] = {"$ref": f"#/components/responses/{name}"}
    else:
        described["security"] = []
    if operation.description:
        described["description"] = operation.description
    if operation.parameters:
        described["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.body:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {
                media_type: {"schema": _schema(body, schemas)}
                for media_type, body in operation.body.items()
            },
        }
        if operation.body_description:
            described["requestBody"]["description"] = operation.body_description
    return described


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _answer(answer: Answer, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "description": answer.description,
        "content": {answer.media_type: {"schema": _schema(answer.body, schemas)}},
    }


def _schema(body: Any, schemas: Mapping[Any, Any]) -> Any:
    """Return the schema of a body: of a type, or the schema that it is already."""
    return dict(body) if isinstance(body, Mapping) else schemas[body]
