"""What `oci.registry` promises of challenges: the right one is answered, to the right host."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from syncd.config.settings import RegistrySettings
from syncd.errors import NotFoundError, RegistryError
from syncd.oci.registry.auth import Logins
from syncd.oci.registry.client import Registry
from tests.fakes.certificate import Certificate
from tests.fakes.registry import Registry as Fake
from tests.oci.test_registry import BASE, IMAGE, REPOSITORY, door, latest, password, read_all

LOGIN = ("user", "right")


@pytest.mark.parametrize(
    "challenges",
    [
        ["OWN"],
        ["OWN", 'Basic realm="Registry"'],
        ['Basic realm="Registry"', "OWN"],
        ['OWN, Basic realm="Registry"'],
        ['Basic realm="a, \\"Bearer realm=x\\"", OWN'],
        ["Negotiate", "NTLM", "OWN"],
        ["Negotiate YIIC+/9==, OWN"],
        ['Digest realm="d", qop="auth,auth-int", nonce="n", OWN'],
    ],
)
@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_challenges(scheme: str, challenges: list[str], tmp_path: Path) -> None:
    """The registry's own challenge is answered, whatever stands before and behind it."""
    with Fake(LOGIN, scheme) as fake:
        fake.push(REPOSITORY, "latest", IMAGE)
        fake.faults.challenges = challenges
        source = door(fake, login=("user", password(tmp_path)))
        assert str(source.resolve(latest(fake)).digest) == IMAGE.digest


@pytest.mark.parametrize("challenge", ['Bearer realm="REALM"', 'bearer scope="",realm="REALM"'])
def test_scope_that_is_not_named(challenge: str) -> None:
    """A challenge without a scope is answered with what is wanted; an empty service is left out."""
    with Fake(scheme="bearer") as fake:
        fake.service = ""
        fake.push(REPOSITORY, "latest", IMAGE)
        fake.faults.challenges = [challenge.replace("REALM", f"http://{fake.address}/token")]
        assert str(door(fake).resolve(latest(fake)).digest) == IMAGE.digest


@pytest.mark.parametrize("challenges", [["Negotiate"], ["NTLM", 'Digest realm="x"'], [" , "]])
def test_nothing_to_answer(challenges: list[str], tmp_path: Path) -> None:
    """Without a challenge that is known, no credentials are sent, and that is one error."""
    with Fake(LOGIN) as fake:
        fake.faults.challenges = challenges
        with pytest.raises(NotFoundError, match="no access"):
            door(fake, login=("user", password(tmp_path))).resolve(latest(fake))
        assert fake.authorizations == [""]


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_store_that_challenges(scheme: str, tmp_path: Path) -> None:
    """A host that blobs are redirected to is not answered when it sends a challenge of its own."""
    with Fake(LOGIN) as fake, Fake(LOGIN, scheme) as store:
        fake.push(REPOSITORY, "latest", IMAGE)
        fake.faults.blobs_at = store.address
        source = door(fake, login=("user", password(tmp_path)))
        with pytest.raises(RegistryError, match=f"127.0.0.1, where registry {fake.address}"):
            read_all(source)
        assert set(store.authorizations) == {""}
        assert "/token" not in [path for _, path in store.requests]


def test_realm_in_upper_case_in_the_clear(tmp_path: Path) -> None:
    """The scheme of a realm is compared without regard to case: HTTP:// is not encrypted."""
    certificate = Certificate.make(tmp_path)
    with Fake(LOGIN, "bearer") as fake:
        fake.encrypt(certificate)
        fake.faults.realm = f"HTTP://{fake.address}/token"
        settings = RegistrySettings(
            host=fake.address,
            username="user",
            password_file=password(tmp_path),
            ca_file=certificate.file,
        )
        with pytest.raises(RegistryError, match="unencrypted"):
            Registry(latest(fake), settings).resolve(latest(fake))
        assert fake.authorizations == [""]


@pytest.mark.parametrize("read", ["manifest", "blob"])
def test_redirect_in_the_clear(read: str, tmp_path: Path) -> None:
    """What an HTTPS registry redirects to HTTP is not fetched, neither a manifest nor a blob."""
    certificate = Certificate.make(tmp_path)
    with Fake() as fake, Fake() as store:
        fake.encrypt(certificate)
        for each in (fake, store):
            each.push(REPOSITORY, "latest", IMAGE)
        fake.faults.blobs_at = store.address
        location = f"http://{store.address}/v2/{REPOSITORY}/manifests/latest"
        fake.faults.heads = [(307, {"Location": location}, b"")]
        source = Registry(
            latest(fake), RegistrySettings(host=fake.address, ca_file=certificate.file)
        )
        with pytest.raises(RegistryError, match=r"from HTTPS to http.*not encrypted") as caught:
            source.resolve(latest(fake)) if read == "manifest" else read_all(source)
        assert not caught.value.temporary
        assert store.requests == []


def test_password_of_any_letters(tmp_path: Path) -> None:
    """A password with letters beyond Latin-1 is sent as UTF-8, to a token service, too."""
    with Fake(("user", "pä€ss"), "bearer") as fake:
        fake.push(REPOSITORY, "latest", IMAGE)
        source = door(fake, login=("user", password(tmp_path, "pä€ss")))
        assert str(source.resolve(latest(fake)).digest) == IMAGE.digest


def test_threads_share_a_token(tmp_path: Path) -> None:
    """Threads that are challenged at the same time ask for one token together."""
    with Fake(LOGIN, "bearer") as fake:
        fake.push(REPOSITORY, "latest", IMAGE)
        source, found = door(fake, login=("user", password(tmp_path))), list[bytes]()
        threads = [threading.Thread(target=lambda: found.append(read_all(source))) for _ in "1234"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [BASE.stored] * 4
        assert len(fake.tokens) == 1
        before = len(fake.requests)
        source.resolve(latest(fake))
        assert len(fake.requests) == before + 1


def test_repositories_share_a_token(tmp_path: Path) -> None:
    """Further objects of a repository use its token; another access asks for one of its own."""
    with Fake(LOGIN, "bearer") as fake:
        logins = Logins()
        fake.push(REPOSITORY, "latest", IMAGE)
        other = tmp_path / "other"
        other.write_text("wrong")
        for file in (password(tmp_path), password(tmp_path)):
            settings = RegistrySettings(
                host=fake.address, plain_http=True, username="user", password_file=file
            )
            Registry(latest(fake), settings, logins=logins).resolve(latest(fake))
        assert len(fake.tokens) == 1
        assert len(fake.requests) == 4
        wrong = settings.model_copy(update={"password_file": other})
        with pytest.raises(NotFoundError):
            Registry(latest(fake), wrong, logins=logins).resolve(latest(fake))


@pytest.mark.parametrize(("lasts", "tokens"), [(0.001, 2), (300, 1), (None, 1)])
def test_token_that_expires(lasts: float | None, tokens: int) -> None:
    """A token is not sent any more once the time is over that its service gave it."""
    with Fake(scheme="bearer") as fake:
        fake.push(REPOSITORY, "latest", IMAGE)
        fake.faults.expires_in = lasts
        source = door(fake)
        for _ in range(2):
            source.resolve(latest(fake))
            threading.Event().wait(0.01)
        assert len(fake.tokens) == tokens
        assert fake.authorizations.count("") == 2 * tokens


def test_expired_token_that_is_forbidden() -> None:
    """A token that is refused by 403 without a challenge is replaced by a new one (GHCR)."""
    with Fake(scheme="bearer") as fake:
        fake.push(REPOSITORY, "latest", IMAGE)
        source = door(fake)
        source.resolve(latest(fake))
        fake.faults.refusals = [(403, {}, b'{"errors":[{"code":"DENIED"}]}')]
        assert source.tags() == ["latest"]
        assert len(fake.tokens) == 2


ECHO = b'{"errors":[{"code":"DENIED","message":"bad header: Authorization: %s"}]}'


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
@pytest.mark.parametrize("status", [400, 404, 503])
def test_echo(scheme: str, status: int, tmp_path: Path) -> None:
    """A registry that quotes the credentials it was sent does not get them into an error."""
    with Fake(LOGIN, scheme) as fake:
        fake.push(REPOSITORY, "latest", IMAGE)
        source = door(fake, login=("user", password(tmp_path)))
        source.resolve(latest(fake))
        sent = fake.authorizations[-1]
        secret = sent.partition(" ")[2]
        for words in (
            "x" * 250 + secret,
            sent,
            secret,
            f"{secret.rstrip('=')} user:right",
            f'{{"a": "{sent}"}}',
        ):
            body = ECHO % words.replace('"', '\\"').encode()
            fake.faults.refusals = [(status, {}, body)] * 5
            with pytest.raises(RegistryError, match=r"\*\*\*") as caught:
                source.tags()
            assert secret[:10] not in str(caught.value)
            assert "right" not in str(caught.value)


def test_echo_in_a_list(tmp_path: Path) -> None:
    """A registry that lists the credentials as a tag does not get them into the log."""
    with Fake(LOGIN) as fake:
        fake.push(REPOSITORY, "latest", IMAGE)
        source = door(fake, login=("user", password(tmp_path)))
        source.tags()
        sent = fake.authorizations[-1]
        fake.faults.refusals = [
            (200, {}, f'{{"tags": ["{sent}", "{"x" * 80}{sent}", "Bearer x y"]}}'.encode())
        ]
        with capture_logs() as logs:
            assert source.tags() == []
        assert sent.partition(" ")[2][:8] not in str(logs)
        assert "Bearer ***" in str(logs)


def test_credentials_of_nobody(registry: Fake) -> None:
    """What looks like credentials is struck out, though nobody sent them."""
    registry.faults.refusals = [
        (400, {}, b'{"errors":[{"code":"Basic dXNlcjpwYXNz","message":5}]}')
    ]
    with pytest.raises(RegistryError, match=r"Basic \*\*\* 5$"):
        door(registry).tags()


@pytest.mark.parametrize("token", ["a b", " secret-token", "secret\\n-token", "sécret-token"])
def test_token_with_blanks(token: str) -> None:
    """A token that no header can carry is refused, and not quoted."""
    with Fake(scheme="bearer") as fake:
        fake.faults.tokens = [(200, f'{{"token": "{token}"}}'.encode())]
        with pytest.raises(RegistryError, match="token that no header can carry") as caught:
            door(fake).resolve(latest(fake))
        assert token not in str(caught.value)
        assert not caught.value.temporary
