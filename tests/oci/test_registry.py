"""What `oci.registry` promises: right answers from a slow, rude or broken registry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from syncd.config.settings import RegistrySettings
from syncd.errors import (
    ImageError,
    LimitError,
    NotFoundError,
    RegistryError,
    RegistryUnavailableError,
    StoppedError,
    SyncdError,
    VerificationError,
)
from syncd.oci.backoff import ATTEMPTS
from syncd.oci.blob_reader import BlobReader
from syncd.oci.image import read_image
from syncd.oci.manifest import Descriptor
from syncd.oci.reference import Platform, Reference
from syncd.oci.registry import Logins, Registry
from tests.archives import file
from tests.fakes.certificate import Certificate
from tests.fakes.registry import Registry as Fake
from tests.images import describe, image, index, layer

REPOSITORY = "org/repo/image"
AMD64 = Platform("linux", "amd64")
BASE = layer(file("a", b"0123456789" * 500), compression="")
IMAGE = image(BASE)
BLOB = Descriptor.parse(describe(BASE.media_type(docker=False), BASE.stored), "blob")


class Told:
    """Traffic that is remembered: the codes of answers, and the bytes that came."""

    def __init__(self) -> None:
        self.codes: list[int | None] = []
        self.seconds = 0.0
        self.bytes = 0

    def answered(self, code: int | None, seconds: float) -> None:
        self.codes.append(code)
        self.seconds += seconds

    def received(self, amount: int) -> None:
        self.bytes += amount


class Waits(list[float]):
    """Records the waits between attempts instead of waiting."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def door(
    fake: Fake,
    waits: Waits | None = None,
    *,
    login: tuple[str, Path] | None = None,
    plain_http: bool = True,
    traffic: Told | None = None,
) -> Registry:
    """Return the door to the fake's repository; `login` is a user and the password's file."""
    settings = RegistrySettings(
        host=fake.address,
        plain_http=plain_http,
        username=login[0] if login else None,
        password_file=login[1] if login else None,
    )
    pause = Waits() if waits is None else waits
    return Registry(latest(fake), settings, pause=pause, traffic=traffic)


def latest(fake: Fake) -> Reference:
    """Return the reference that most tests ask for."""
    return Reference(fake.address, REPOSITORY, "latest")


def password(folder: Path, text: str = "right") -> Path:
    """Write the password's file."""
    path = folder / "password"
    path.write_text(f"{text}\n")
    return path


def read_all(
    registry: Registry,
    wanted: Descriptor = BLOB,
    offset: int = 0,
    pause: Callable[[float], object] = lambda _: None,
) -> bytes:
    """Read a blob to its end: from `offset` through one connection, else through many."""
    open_at = partial(registry.blob, wanted)
    reader = open_at(offset) if offset else BlobReader(wanted, open_at=open_at, pause=pause)
    try:
        return b"".join(iter(lambda: reader.read(1000), b""))
    finally:
        reader.close()


@pytest.mark.parametrize("docker", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_resolve_is_one_head(registry: Fake, docker: bool, wrapped: bool) -> None:
    """A tag's meaning costs one HEAD, and no document, whatever the tag points at."""
    single = image(BASE, docker=docker)
    content = index(single, docker=docker) if wrapped else single
    registry.push(REPOSITORY, "latest", content)
    found = door(registry).resolve(latest(registry))
    assert (str(found.digest), found.media_type) == (
        content.digest,
        content.descriptor["mediaType"],
    )
    assert registry.requests == [("HEAD", f"/v2/{REPOSITORY}/manifests/latest")]


def test_traffic(tmp_path: Path) -> None:
    """Every request is told with its code, redirected, refused and for a token; and every byte."""
    with Fake(("user", "right"), "bearer") as fake, Fake() as store:
        for each in (fake, store):
            each.push(REPOSITORY, "latest", IMAGE)
        traffic = Told()
        opened = door(fake, login=("user", password(tmp_path)), traffic=traffic)
        fake.faults.refusals.append((503, {}, b""))
        descriptor = opened.resolve(latest(fake))
        assert traffic.codes == [503, 401, 200, 200]
        assert traffic.bytes == 0
        found = opened.document(descriptor)
        assert traffic.bytes == len(found)
        fake.faults.blobs_at = store.address
        fake.faults.break_after.append(100)
        store.faults.break_after.append(100)
        assert read_all(opened) == BASE.stored
        assert traffic.bytes == len(found) + len(BASE.stored)
        assert traffic.codes[4:] == [200, 307, 200, 307, 206]
        assert traffic.seconds > 0
    with pytest.raises(RegistryUnavailableError):
        door(fake, traffic=traffic).resolve(latest(fake))
    assert traffic.codes[9:] == [None] * ATTEMPTS


def test_resolve_falls_back_to_get(registry: Fake) -> None:
    """A HEAD without digest is made up by reading: the specification does not oblige to it."""
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.faults.silent_head = True
    assert str(door(registry).resolve(latest(registry)).digest) == IMAGE.digest
    assert [method for method, _ in registry.requests] == ["HEAD", "GET"]


def test_resolve_digest(registry: Fake) -> None:
    """A digest is asked for as it is, and another one for an answer is refused."""
    registry.push(REPOSITORY, "latest", IMAGE)
    reference = latest(registry).with_tag("ignored")
    pinned = Reference.parse(f"{reference}@{IMAGE.digest}")
    assert str(door(registry).resolve(pinned).digest) == IMAGE.digest
    other = f"sha256:{'0' * 64}"
    media_type = IMAGE.descriptor["mediaType"]
    headers = {"Docker-Content-Digest": IMAGE.digest, "Content-Type": media_type}
    registry.faults.refusals.append((200, headers, b"12"))
    with pytest.raises(VerificationError, match=IMAGE.digest):
        door(registry).resolve(Reference.parse(f"{latest(registry).name}@{other}"))


def test_resolve_ignores_a_digest_that_is_none(registry: Fake) -> None:
    """A Docker-Content-Digest that is no digest counts as missing."""
    registry.push(REPOSITORY, "latest", IMAGE)
    headers = {"Docker-Content-Digest": "latest", "Content-Type": "x/y"}
    registry.faults.refusals.append((200, headers, b"12"))
    assert str(door(registry).resolve(latest(registry)).digest) == IMAGE.digest


@pytest.mark.parametrize("docker", [False, True])
@pytest.mark.parametrize("attestation", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_read_image(registry: Fake, docker: bool, attestation: bool, wrapped: bool) -> None:
    """OCI and Docker types, single or in an index with attestations, give the platform's image."""
    wanted = image(BASE, docker=docker)
    arm = image(BASE, docker=docker, platform="linux/arm64")
    content = index(arm, wanted, docker=docker, attestation=attestation) if wrapped else wanted
    registry.push(REPOSITORY, "latest", content)
    source = door(registry)
    found = read_image(source, source.resolve(latest(registry)), AMD64)
    assert (str(found.digest), str(found.manifest_digest)) == (content.digest, wanted.digest)
    assert str(found.config_digest) == wanted.document["config"]["digest"]
    assert read_all(source, found.layers[0].descriptor) == BASE.stored


def test_platform_absent(registry: Fake) -> None:
    """An index without the platform is one error that says what there is."""
    registry.push(
        REPOSITORY, "latest", index(image(BASE, platform="linux/arm64"), attestation=True)
    )
    source = door(registry)
    with pytest.raises(ImageError, match=r"no manifest for linux/amd64 \(it has: linux/arm64\)"):
        read_image(source, source.resolve(latest(registry)), AMD64)


def test_document_is_verified(registry: Fake) -> None:
    """A document other than its digest says is refused."""
    registry.push(REPOSITORY, "latest", IMAGE)
    source = door(registry)
    top = source.resolve(latest(registry))
    registry.replace_blob(IMAGE.digest, bytes(len(IMAGE.blobs[IMAGE.digest])))
    with pytest.raises(VerificationError, match=IMAGE.digest):
        source.document(top)


def test_endless_document(registry: Fake) -> None:
    """A document without end is left after 4 MiB."""
    registry.push(REPOSITORY, "latest", IMAGE)
    source = door(registry)
    top = source.resolve(latest(registry))
    registry.faults.endless = True
    with pytest.raises(LimitError, match=r"bound of 4194304 .*limits\.document"):
        source.document(top)


def test_broken_document_is_asked_for_again(registry: Fake) -> None:
    """A document that breaks off is a fault that can pass."""
    registry.push(REPOSITORY, "latest", IMAGE)
    source = door(registry, waits := Waits())
    top = source.resolve(latest(registry))
    registry.faults.break_after = [10, 0]
    assert source.document(top) == IMAGE.blobs[IMAGE.digest]
    assert len(waits) == 2


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_login(scheme: str, tmp_path: Path) -> None:
    """Both kinds of challenge are answered with the configured login."""
    with Fake(("user", "right"), scheme) as fake:
        fake.push(REPOSITORY, "latest", IMAGE)
        source = door(fake, login=("user", password(tmp_path)))
        assert read_image(source, source.resolve(latest(fake)), AMD64)
        assert sum(path == "/token" for _, path in fake.requests) == (scheme == "bearer")


@pytest.mark.parametrize("token_field", ["token", "access_token"])
def test_anonymous_token(token_field: str) -> None:
    """Without a login a token is fetched anonymously, whichever name it comes under."""
    with Fake(scheme="bearer") as fake:
        fake.faults.token_field = token_field
        fake.push(REPOSITORY, "latest", IMAGE)
        assert str(door(fake).resolve(latest(fake)).digest) == IMAGE.digest
        (token,) = fake.tokens
        assert fake.authorizations == ["", "", f"Bearer {token}"]


def test_token_of_each_repository() -> None:
    """A token is asked for by the service and the scope of the challenge, for each repository."""
    with Fake(scheme="bearer") as fake:
        for name in (REPOSITORY, "org/other"):
            fake.push(name, "latest", IMAGE)
            reference = Reference(fake.address, name, "latest")
            source = Registry(reference, RegistrySettings(host=fake.address, plain_http=True))
            assert str(source.resolve(reference).digest) == IMAGE.digest
        assert [(token.service, *token.scopes) for token in fake.tokens.values()] == [
            (fake.service, f"repository:{REPOSITORY}:pull"),
            (fake.service, "repository:org/other:pull"),
        ]


def test_expired_token() -> None:
    """A token that the registry does not take any more is replaced by a new one."""
    with Fake(scheme="bearer") as fake:
        fake.push(REPOSITORY, "latest", IMAGE)
        source = door(fake)
        top = source.resolve(latest(fake))
        fake.tokens.clear()
        assert source.document(top) == IMAGE.blobs[IMAGE.digest]
        assert len(fake.tokens) == 1


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_rotated_password(scheme: str, tmp_path: Path) -> None:
    """A password that changed in its file is used at the next challenge, by the same client."""
    with Fake(("user", "right"), scheme) as fake:
        fake.push(REPOSITORY, "latest", IMAGE)
        source = door(fake, login=("user", password(tmp_path, "old")))
        with pytest.raises(NotFoundError):
            source.resolve(latest(fake))
        password(tmp_path, "right")
        assert str(source.resolve(latest(fake)).digest) == IMAGE.digest


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
@pytest.mark.parametrize("given", [False, True])
def test_denied(scheme: str, given: bool, tmp_path: Path) -> None:
    """A wrong password, or none where one is needed, is one error at once, without the secret."""
    with Fake(("user", "right"), scheme) as fake:
        login = ("user", password(tmp_path, "hunter2")) if given else None
        has = "the credentials are not accepted" if given else "no credentials"
        with pytest.raises(NotFoundError, match=rf"no access \({has};") as caught:
            door(fake, waits := Waits(), login=login).resolve(latest(fake))
        assert waits == []
        assert len(fake.requests) <= 3
        assert "hunter2" not in str(caught.value)
        assert f"password_file of [[registry]] host '{fake.address}'" in str(caught.value)


def test_missing_password_file(tmp_path: Path) -> None:
    """A password file that is gone is named."""
    with Fake(("user", "right")) as fake, pytest.raises(SyncdError, match=str(tmp_path / "none")):
        door(fake, login=("user", tmp_path / "none")).resolve(latest(fake))


def test_realm_in_the_clear(tmp_path: Path) -> None:
    """Credentials do not go to a token service over HTTP unless the registry is plain HTTP."""
    certificate = Certificate.make(tmp_path)
    with Fake(("user", "right"), "bearer") as fake:
        fake.encrypt(certificate)
        settings = RegistrySettings(
            host=fake.address,
            username="user",
            password_file=password(tmp_path),
            ca_file=certificate.file,
        )
        with pytest.raises(RegistryError, match=f"unencrypted to http://{fake.address}/token"):
            Registry(latest(fake), settings).resolve(latest(fake))
        assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("realm", "message"),
    [("ftp://127.0.0.1/", "no token service"), ("token", "no token service")],
)
def test_odd_realm(realm: str, message: str) -> None:
    """A challenge that names no token service is told."""
    with Fake(scheme="bearer") as fake:
        fake.faults.realm = realm
        with pytest.raises(RegistryError, match=message):
            door(fake).resolve(latest(fake))


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([(503, b""), (429, b"")], None),
        ([(200, b"<html>")], RegistryError),
        ([(200, b"[]")], NotFoundError),
        ([(200, b'{"token": 5}')], NotFoundError),
        ([(403, b"")], NotFoundError),
        ([(200, b" " * (2 << 20))], RegistryError),
    ],
)
def test_token_service(answers: list[tuple[int, bytes]], error: type[SyncdError] | None) -> None:
    """A token service that is busy is asked again; one that answers nonsense is an error."""
    with Fake(scheme="bearer") as fake:
        fake.push(REPOSITORY, "latest", IMAGE)
        fake.faults.tokens = answers
        if error is None:
            assert door(fake).resolve(latest(fake))
        else:
            with pytest.raises(error):
                door(fake).resolve(latest(fake))


GHCR_429 = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"retry-after: %s, allowed: 44000/m"}]}'


@pytest.mark.parametrize(
    ("status", "headers", "body", "least"),
    [
        (429, {"Retry-After": "7"}, b"", 7),
        (429, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, b"", 0),
        (429, {}, GHCR_429 % "880.092µs".encode(), 0.00088),
        (429, {}, GHCR_429 % b"30s", 30),
        (429, {}, GHCR_429 % b"1.5s", 1.5),
        (429, {}, GHCR_429 % b"250ms", 0.25),
        (429, {}, GHCR_429 % b"0m9.5s", 9.5),
        (429, {}, GHCR_429 % b"0m59.5s", 59.5),
        (429, {}, b"\xff\xfe", 0),
        (403, {}, b'{"message": "You have exceeded a secondary rate limit"}', 0),
        (408, {}, b"", 0),
        (500, {}, b"", 0),
        (502, {}, b"<html>", 0),
        (503, {"Retry-After": "2"}, b"", 2),
        (504, {}, b"", 0),
    ],
)
def test_passing_refusal(
    registry: Fake, status: int, headers: dict[str, str], body: bytes, least: float
) -> None:
    """A fault that can pass is waited out, at least as long as the registry asks (bounded)."""
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.faults.refusals = [(status, headers, body)] * 2
    registry.faults.silent_head = True
    door(registry, waits := Waits()).tags()
    assert len(waits) == 2
    assert all(least <= wait <= 60 for wait in waits)


@pytest.mark.parametrize(
    ("headers", "body", "asked"),
    [
        ({"Retry-After": "100000"}, b"", 3600),
        ({}, GHCR_429 % b"1m30s", 90),
        ({}, GHCR_429 % b"2h0m0s", 3600),
    ],
)
def test_long_waits(registry: Fake, headers: dict[str, str], body: bytes, asked: float) -> None:
    """A wait too long to be waited out ends the job, and is kept by the next job: nothing is sent.

    An hour is kept at most, and other registries are asked meanwhile.
    """
    logins = Logins()
    settings = RegistrySettings(host=registry.address, plain_http=True)

    def next_job() -> Registry:
        return Registry(latest(registry), settings, pause=waits, logins=logins)

    waits = Waits()
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.faults.refusals = [(429, headers, body)]
    with pytest.raises(RegistryUnavailableError, match="answers 429"):
        next_job().tags()
    with pytest.raises(RegistryUnavailableError, match="asked to be left alone") as caught:
        next_job().resolve(latest(registry))
    assert asked - 10 < caught.value.retry_after <= asked
    assert len(registry.requests) == 1
    assert waits == []
    with Fake() as other:
        other.push(REPOSITORY, "latest", IMAGE)
        elsewhere = RegistrySettings(host=other.address, plain_http=True)
        assert Registry(latest(other), elsewhere, logins=logins).resolve(latest(other))


def test_short_waits_are_shared(registry: Fake) -> None:
    """A wait that one job was asked for is waited out by the next job before it asks."""
    logins = Logins()
    settings = RegistrySettings(host=registry.address, plain_http=True)

    def give_up(_: float) -> None:
        raise StoppedError("syncd is stopping")

    registry.push(REPOSITORY, "latest", IMAGE)
    registry.faults.refusals = [(429, {"Retry-After": "20"}, b"")]
    with pytest.raises(StoppedError):
        Registry(latest(registry), settings, pause=give_up, logins=logins).tags()
    waits = Waits()
    Registry(latest(registry), settings, pause=waits, logins=logins).resolve(latest(registry))
    (wait,) = waits
    assert 10 < wait <= 21


def test_backoff_grows(registry: Fake) -> None:
    """Each wait is about twice the one before, and there is an end to it."""
    registry.faults.refusals = [(500, {}, b"")] * 10
    with pytest.raises(RegistryUnavailableError, match="answers 500") as caught:
        door(registry, waits := Waits()).resolve(latest(registry))
    assert caught.value.temporary
    assert len(registry.requests) == ATTEMPTS
    bounds = [0.25 * 2**attempt for attempt in range(ATTEMPTS - 1)]
    assert all(b * 0.5 <= wait <= b * 1.5 for b, wait in zip(bounds, waits, strict=True))


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, NotFoundError), (403, NotFoundError), (400, RegistryError), (416, RegistryError)],
)
def test_lasting_refusal(registry: Fake, status: int, error: type[SyncdError]) -> None:
    """A refusal that will not pass is not tried again."""
    registry.faults.refusals = [(status, {}, b"")] * 2
    with pytest.raises(error, match=REPOSITORY) as caught:
        door(registry, waits := Waits()).resolve(latest(registry))
    assert waits == []
    assert not caught.value.temporary


def test_registry_words(registry: Fake) -> None:
    """The registry's own words are part of the error, and bounded."""
    body = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "gone %s"}]}' % (b"x" * 5000)
    registry.faults.refusals = [(404, {}, body)]
    with pytest.raises(NotFoundError, match="404 MANIFEST_UNKNOWN: gone x") as caught:
        door(registry).tags()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("body", [b"[]", b'{"errors": 5}', b'{"errors": ["x"]}', b"\x00", b""])
def test_speechless_refusal(body: bytes, registry: Fake) -> None:
    """A refusal of any shape is an error of ours."""
    registry.faults.refusals = [(404, {}, body)]
    with pytest.raises(NotFoundError, match="404"):
        door(registry).tags()


def test_down() -> None:
    """A registry that is not there is a passing fault that names it and what to do."""
    with Fake() as fake:
        pass
    with pytest.raises(RegistryUnavailableError, match=f"{fake.address} cannot be reached.*next"):
        door(fake, waits := Waits()).resolve(latest(fake))
    assert len(waits) == ATTEMPTS - 1


def test_giving_up_while_waiting(registry: Fake) -> None:
    """An error raised by the pause ends the attempts at once: a daemon stops."""

    def stop(_: float) -> None:
        raise SyncdError("stopping")

    registry.faults.refusals = [(500, {}, b"")] * 5
    settings = RegistrySettings(host=registry.address, plain_http=True)
    with pytest.raises(SyncdError, match=r"^stopping$"):
        Registry(latest(registry), settings, pause=stop).resolve(latest(registry))
    assert len(registry.requests) == 1


def test_untrusted_certificate(tmp_path: Path) -> None:
    """A certificate that no known authority signed is refused at once, unless its CA is given."""
    certificate = Certificate.make(tmp_path)
    with Fake() as fake:
        fake.encrypt(certificate)
        fake.push(REPOSITORY, "latest", IMAGE)
        with pytest.raises(RegistryError, match="cannot be trusted") as caught:
            door(fake, waits := Waits(), plain_http=False).resolve(latest(fake))
        assert waits == []
        assert not caught.value.temporary
        trusting = RegistrySettings(host=fake.address, ca_file=certificate.file)
        assert Registry(latest(fake), trusting).resolve(latest(fake))


def test_redirect_carries_no_login(tmp_path: Path) -> None:
    """Blobs may come from another host, which never sees the registry's credentials."""
    with Fake(("user", "right")) as fake, Fake() as store:
        fake.push(REPOSITORY, "latest", IMAGE)
        store.push(REPOSITORY, "latest", IMAGE)
        fake.faults.blobs_at = store.address.replace("127.0.0.1", "localhost")
        assert read_all(door(fake, login=("user", password(tmp_path)))) == BASE.stored
        assert store.authorizations == [""]


def test_netrc_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What ~/.netrc knows of a host is sent neither to a registry nor where it redirects to."""
    (tmp_path / ".netrc").write_text(
        "machine 127.0.0.1 login x password netrc\nmachine localhost login x password netrc\n"
    )
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    with Fake(("user", "right")) as fake, Fake() as store:
        fake.push(REPOSITORY, "latest", IMAGE)
        store.push(REPOSITORY, "latest", IMAGE)
        fake.faults.blobs_at = store.address.replace("127.0.0.1", "localhost")
        assert read_all(door(fake, login=("user", password(tmp_path)))) == BASE.stored
        assert fake.authorizations[0] == ""
        assert store.authorizations == [""]


@pytest.mark.parametrize("ranges", [False, True])
@pytest.mark.parametrize("cuts", [[0], [1], [4000], [1000, 500, 1]])
def test_blob_resumes(registry: Fake, ranges: bool, cuts: list[int]) -> None:
    """A stream that breaks goes on where it stopped, with or without ranges."""
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.faults.ranges = ranges
    registry.faults.break_after = list(cuts) if ranges else cuts[:1]
    assert read_all(door(registry)) == BASE.stored
    if cuts == [1000, 500, 1]:
        assert registry.ranges[:2] == ["", "bytes=1000-"]


def test_blob_from_an_offset(registry: Fake) -> None:
    """A blob is opened where an earlier attempt stopped."""
    registry.push(REPOSITORY, "latest", IMAGE)
    for registry.faults.ranges in (True, False):
        assert read_all(door(registry), offset=3000) == BASE.stored[3000:]
    assert registry.ranges == ["bytes=3000-"] * 2


@pytest.mark.parametrize("claimed", ["bytes 0-10/10", "bytes 3001-5000/5001", "rubbish", " "])
def test_wrong_content_range(registry: Fake, claimed: str) -> None:
    """A server that resumes at another place is not believed."""
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.faults.content_range = claimed
    with pytest.raises(RegistryError, match="wrong place"):
        read_all(door(registry), offset=3000)


def test_blob_that_never_ends_well(registry: Fake) -> None:
    """A stream that breaks again and again without getting further is given up."""
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.faults.break_after = [2000] + [0] * 50
    with pytest.raises(RegistryUnavailableError, match=r"broke off 5 times at byte 2000.*resumes"):
        read_all(door(registry), pause=(waits := Waits()))
    assert len(waits) == ATTEMPTS - 1


def test_blob_shorter_than_said(registry: Fake) -> None:
    """A blob that ends too early with every sign of success is given up too."""
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.replace_blob(str(BLOB.digest), BASE.stored[:-5])
    registry.faults.ranges = False
    with pytest.raises(RegistryUnavailableError, match="ended early"):
        read_all(door(registry))


def test_blob_longer_than_said(registry: Fake) -> None:
    """No more than the promised bytes, and one to tell, need ever be read."""
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.replace_blob(str(BLOB.digest), BASE.stored + bytes(1 << 20))
    reader = door(registry).blob(BLOB)
    assert len(reader.read(BLOB.size + 1)) == BLOB.size + 1
    assert reader.read(1) == b""
    reader.close()


def test_tags(registry: Fake) -> None:
    """The list of tags is followed over its pages."""
    wanted = [f"v{number}" for number in range(7)]
    for tag in wanted:
        registry.push(REPOSITORY, tag, IMAGE)
    assert door(registry).tags() == wanted
    assert len(registry.requests) == 4


def test_too_many_tags(registry: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of more tags than memory is given for is refused, whatever its pages hold."""
    monkeypatch.setattr("syncd.oci.registry.pages._TAGS_MAX", 3)
    for tag in ("a", "b", "c"):
        registry.push(REPOSITORY, tag, IMAGE)
    assert len(door(registry).tags()) == 3
    registry.push(REPOSITORY, "d", IMAGE)
    with pytest.raises(RegistryError, match="more than 3 tags"):
        door(registry).tags()


def test_no_tags(registry: Fake) -> None:
    """A repository without tags says null, and that is none."""
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.untag(REPOSITORY, "latest")
    assert door(registry).tags() == []


def test_tags_of_no_repository(registry: Fake) -> None:
    """A repository that is not there has no list of tags: that is an error, not an empty list."""
    with pytest.raises(NotFoundError, match=r"does not have the tags of .*\(404 NAME_UNKNOWN"):
        door(registry).tags()


def test_blob_of_another_repository(registry: Fake) -> None:
    """A blob that only another repository has is not there."""
    registry.push("org/other", "latest", IMAGE)
    with pytest.raises(NotFoundError, match="404 BLOB_UNKNOWN"):
        read_all(door(registry))


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"", "no list of tags"), (b"[]", "no list"), (b'{"name": 1}', "no list")],
)
def test_bad_tags(registry: Fake, body: bytes, message: str) -> None:
    """An answer that is no list of tags is told."""
    registry.faults.refusals = [(200, {}, body)]
    with pytest.raises(RegistryError, match=message):
        door(registry).tags()


@pytest.mark.parametrize(
    ("following", "message"),
    [
        ("http://localhost:1/v2/x/tags/list", "another host"),
        ("https://HOST/v2/x/tags/list", "another host"),
        ("http://[", "another host"),
        ("/v2/org/repo/image/tags/list?n=2", "more pages than 200"),
    ],
)
def test_tags_go_astray(registry: Fake, following: str, message: str) -> None:
    """A list of tags is not followed to another host or scheme, nor for ever."""
    for tag in ("a", "b", "c"):
        registry.push(REPOSITORY, tag, IMAGE)
    registry.faults.next_tags = following.replace("HOST", registry.address)
    with pytest.raises(RegistryError, match=message):
        door(registry).tags()


def test_docker_hub() -> None:
    """docker.io is reached by its API's own name."""
    reference = Reference.parse("debian:13")
    source = Registry(reference, RegistrySettings(host="docker.io"))
    assert source._base == "https://registry-1.docker.io/v2/library/debian"


def test_threads_have_their_own_clients(registry: Fake) -> None:
    """Several threads may read at once: a token is never shared between them."""
    registry.push(REPOSITORY, "latest", IMAGE)
    source, found = door(registry), list[bytes]()
    threads = [threading.Thread(target=lambda: found.append(read_all(source))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [BASE.stored] * 4
