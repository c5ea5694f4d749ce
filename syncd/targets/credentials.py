"""What a caller logs in to a registry with, as it is sent: checked here, and shown nowhere."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import ConfigDict, SecretStr, model_validator

from syncd.oci import CallerLogin
from syncd.targets.request import RequestModel, SecretText

_TEXT, _NONE = {"type": "string"}, {"type": "null"}
_ONE_LOGIN: dict[str, Any] = {
    "oneOf": [
        {
            "required": ["username", "password"],
            "properties": {"username": _TEXT, "password": _TEXT, "token": _NONE},
        },
        {
            "required": ["token"],
            "properties": {"username": _NONE, "password": _NONE, "token": _TEXT},
        },
    ]
}


class Credentials(RequestModel):
    """A login for the registry of one image, kept in memory for this request and its job alone."""

    model_config = ConfigDict(json_schema_extra=_ONE_LOGIN)

    username: (
        Annotated[
            SecretStr,
            SecretText(
                1,
                255,
                "The name to log in with.",
                characters=r"[^\x00-\x1f\x7f:]",  # RFC 7617, section 2
                which="none of them a colon or a control character",
            ),
        ]
        | None
    ) = None
    password: (
        Annotated[SecretStr, SecretText(1, 4096, "The password, or an access token in its place.")]
        | None
    ) = None
    token: (
        Annotated[
            SecretStr,
            SecretText(
                1,
                16_384,
                "In place of both, a bearer token that the registry itself takes.",
                characters=r"[\x21-\x7e]",
                which="visible ones of ASCII",
            ),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _is_one_login(self) -> Self:
        both = self.username is not None and self.password is not None
        either = self.username is not None or self.password is not None
        if both != either or both == (self.token is not None):
            raise ValueError("write username and password, or token alone")
        return self

    def login(self) -> CallerLogin:
        """Return what the registry is opened with."""
        username, password, token = (
            "" if value is None else value.get_secret_value()
            for value in (self.username, self.password, self.token)
        )
        return CallerLogin(username, password, token)
