"""The images of a first configuration: which tags are watched, and how their registries are asked.

Each registry is asked for a tag without a login first.  Only if it refuses is a login asked for,
and the login is tried before the next question.  A registry that speaks HTTP is asked so only where
the person agrees: no login goes over HTTP by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from syncd.cli import console
from syncd.cli.questions import Questions
from syncd.config import ImageSettings, Value, check_value
from syncd.errors import NotFoundError, PlainHttpError, SyncdError
from syncd.oci import Reference, RegistryAccess

SUGGESTED = "ghcr.io/mieweb/opensource-server/base:latest"
_LOOK = 15.0  # seconds that a look at a registry may take, before the next question
_PATTERN = ":re:"
_PASSWORD = "Password, for GHCR a classic token with read:packages (not shown)"  # noqa: S105 - words


@dataclass(frozen=True, slots=True)
class WatchedTag:
    """A repository, and a tag of it or `re:` and a regular expression."""

    repository: Reference
    tag: str


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """How to speak to a registry, as typed; it becomes a table and a secret."""

    host: str
    plain_http: bool = False
    username: str | None = None
    password: str = field(default="", repr=False)
    ca_file: None = None

    def credentials(self) -> tuple[str, str] | None:
        """Return username and password, or None."""
        return (self.username, self.password) if self.username is not None else None


def parse_watched(text: str) -> WatchedTag:
    """Return what `REPOSITORY[:TAG]` or `REPOSITORY:re:PATTERN` watches.

    Raise ValueError or InvalidReferenceError, saying what is wrong.
    """
    name, mark, pattern = text.partition(_PATTERN)
    reference = Reference.typed(name)
    if reference.digest is not None:
        raise ValueError("a digest always means the same image: name a tag to watch")
    if not mark:
        return WatchedTag(Reference.parse(reference.name), reference.tag or "latest")
    if reference.tag is not None:
        raise ValueError(f"write a tag, or {_PATTERN}PATTERN, not both")
    check_value(ImageSettings, "tags", (f"re:{pattern}",))
    return WatchedTag(reference, f"re:{pattern}")


def ask_images(questions: Questions, given: Sequence[str]) -> list[WatchedTag]:
    """Return the tags to watch: those of the options, or those that are typed."""
    return questions.several(
        "Images to watch, as REPOSITORY:TAG, parted by blanks",
        "--image",
        parse_watched,
        given,
        (SUGGESTED,) if questions.asking else (),
    )


def ask_logins(
    questions: Questions,
    watched: Iterable[WatchedTag],
    plain: Sequence[str],
    given: Mapping[str, tuple[str, str]],
) -> list[RegistryLogin]:
    """Return the registries that need more than anonymous HTTPS.

    `plain` are the hosts that speak HTTP, `given` has username and password by host.  Who sits at a
    terminal is asked for a login where the registry wants one.
    """
    first = {each.repository.registry: each for each in watched}
    logins = []
    for host, example in first.items():
        login = RegistryLogin(host, host in plain, *given.get(host, (None, "")))
        if questions.asking and login.username is None:
            login = _tried(questions, login, example)
        if login.plain_http or login.username is not None:
            logins.append(login)
    return logins


def image_tables(watched: Iterable[WatchedTag]) -> list[dict[str, Value]]:
    """Return a table for each repository, with its tags in the order in which they came."""
    tags: dict[str, dict[str, None]] = {}
    for each in watched:
        tags.setdefault(each.repository.name, {})[each.tag] = None
    return [{"repository": name, "tags": tuple(found)} for name, found in tags.items()]


def _tried(questions: Questions, login: RegistryLogin, example: WatchedTag) -> RegistryLogin:
    """Return the login with which the registry shows an image, or the one that is given up on."""
    while True:
        try:
            _look(login, example)
        except PlainHttpError as exc:
            console.complain(f"  {exc.what}")
            if not questions.agree(
                f"Use HTTP, as --plain-http {login.host} does?", None, default=False
            ):
                return login
            login = replace(login, plain_http=True)
            continue
        except NotFoundError as exc:
            console.complain(f"  {exc}")
        except SyncdError as exc:
            console.complain(f"  {exc}\n  Nothing is lost: `syncd check` looks again.")
            return login
        else:
            return login
        user = questions.answer(
            f"User name at {login.host} (Enter: go on without another login)",
            "--login",
            lambda text: text,
            default="",
        )
        if not user:
            return login
        if word := questions.secret(_PASSWORD):
            login = RegistryLogin(login.host, login.plain_http, user, word)


def _look(access: RegistryAccess, watched: WatchedTag) -> None:
    """Ask a registry for a tag, or for its list of tags; raise as `Registry.resolve` does."""
    from syncd.oci.registry import Registry, Timeouts

    registry = Registry(watched.repository, access, timeouts=Timeouts(look=_LOOK))
    if watched.tag.startswith("re:"):
        registry.tags()
    else:
        registry.resolve(watched.repository.with_tag(watched.tag))
