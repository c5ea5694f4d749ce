"""Which images are trusted: signatures of every form, in every place, and what is said of each."""

from __future__ import annotations

import base64
import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from syncd.errors import (
    RegistryUnavailableError,
    TrustError,
    TrustRootUnavailableError,
    UnsignedError,
    UntrustedError,
)
from syncd.oci import AnonymousAccess, Digest, Reference
from syncd.oci.registry import Registry as Client
from syncd.trust import Judge, Policy, Subject, Voucher, Wanted
from tests.fakes.registry import Registry
from tests.images import Content, document
from tests.sigstore import (
    IDENTITY,
    IMAGE,
    INDEX,
    ISSUER,
    OTHER,
    REQUESTS,
    ROOT,
    SLSA,
    Key,
    attach_referrer,
    attach_tag,
    recorded,
    referrer,
    simple,
    statement,
)

REPOSITORY = "org/repo/image"
KEYLESS = Wanted(IDENTITY, ISSUER, trust_root=ROOT)
PATTERN = "re:https://github.com/org/repo/.github/workflows/build\\.yml@refs/(heads|tags)/.*"


@pytest.fixture(params=[False, True], ids=["by tag", "by list"])
def registry(request: pytest.FixtureRequest) -> Iterator[Registry]:
    """Serve from a registry that cannot list referrers, and from one that can."""
    with Registry() as running:
        running.lists_referrers = request.param
        yield running


@pytest.fixture(scope="module")
def key() -> Key:
    return Key()


def subject(registry: Registry, *digests: str) -> Subject:
    """Return the image as a job knows it; by default one without an index."""
    name = Reference.parse(f"{registry.address}/{REPOSITORY}:latest")
    client = Client(name, AnonymousAccess(registry.address, plain_http=True), pause=lambda _: None)
    wanted = digests or (IMAGE.digest,)
    return Subject(name, client, tuple(Digest.parse(one) for one in wanted))


def judged(registry: Registry, folder: Path, *wanted: Wanted, **policy: Any) -> list[Voucher]:
    """Return what vouches for the image."""
    judge = Judge(folder)
    return [*judge.require(subject(registry), Policy(wanted or (KEYLESS,), **policy))]


def tag(registry: Registry, *names: str) -> None:
    """Sign as cosign 2 does."""
    attach_tag(registry, REPOSITORY, IMAGE.digest, *(recorded(name).layer for name in names))


def refer(registry: Registry, *names: str) -> None:
    """Sign as cosign 3 does."""
    attach(registry, IMAGE, *(recorded(name).bundle for name in names))


def attach(registry: Registry, image: Content, *bundles: object) -> None:
    """Attach bundles; a registry that lists what refers to an image needs no tag for it."""
    tagged = attach_referrer(registry, REPOSITORY, image, *bundles)
    if registry.lists_referrers:
        registry.untag(REPOSITORY, tagged.rpartition(":")[2])


def broken(name: str, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return a bundle with a change in it."""
    bundle = copy.deepcopy(recorded(name).bundle)
    change(bundle)
    return bundle


def entry(bundle: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of the log of a bundle."""
    found: dict[str, Any] = bundle["verificationMaterial"]["tlogEntries"][0]
    return found


def swapped_promise(registry: Registry) -> None:
    """Push a signature with the promise that another signature got."""
    descriptor, content = recorded("simple image").layer
    promise = "dev.sigstore.cosign/bundle"
    notes = {**descriptor["annotations"], promise: recorded("simple index").annotations[promise]}
    attach_tag(registry, REPOSITORY, IMAGE.digest, ({**descriptor, "annotations": notes}, content))


def promised(**fields: Any) -> Callable[[Registry], None]:
    """Return what pushes a signature whose promise says something else than the log signed."""

    def push(registry: Registry) -> None:
        descriptor, content = recorded("simple image").layer
        key = "dev.sigstore.cosign/bundle"
        promise = json.loads(descriptor["annotations"][key])
        payload = promise["Payload"] | fields.get("Payload", {})
        changed = json.dumps(promise | fields | {"Payload": payload})
        notes = {**descriptor["annotations"], key: changed}
        layer = {**descriptor, "annotations": notes}, content
        attach_tag(registry, REPOSITORY, IMAGE.digest, layer)

    return push


def without(*keys: str) -> Callable[[Registry], None]:
    """Return what pushes a signature of cosign 2 that lacks annotations."""

    def push(registry: Registry) -> None:
        descriptor, content = recorded("simple image").layer
        notes = {k: v for k, v in descriptor["annotations"].items() if k not in keys}
        layer = {**descriptor, "annotations": notes}, content
        attach_tag(registry, REPOSITORY, IMAGE.digest, layer)

    return push


def bundles(*made: object) -> Callable[[Registry], None]:
    """Return what pushes bundles as cosign 3 does."""
    return lambda registry: attach(registry, IMAGE, *made)


def zeros(bundle: dict[str, Any]) -> None:
    entry(bundle)["inclusionProof"]["rootHash"] = base64.b64encode(bytes(32)).decode()


def another_leaf(bundle: dict[str, Any]) -> None:
    entry(bundle)["inclusionProof"]["treeSize"] = "2"


def unsigned_checkpoint(bundle: dict[str, Any]) -> None:
    checkpoint = entry(bundle)["inclusionProof"]["checkpoint"]
    note, _, _ = checkpoint["envelope"].partition("\u2014")
    checkpoint["envelope"] = (
        f"{note}\u2014 rekor.sigstore.dev {base64.b64encode(bytes(70)).decode()}\n"
    )


def later(bundle: dict[str, Any]) -> None:
    logged = entry(bundle)
    logged["integratedTime"] = str(int(logged["integratedTime"]) + 1)


def swapped_entry(bundle: dict[str, Any]) -> None:
    bundle["verificationMaterial"]["tlogEntries"] = [entry(recorded("bundle index").bundle)]


def swapped_envelope(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"] = recorded("bundle annotated").bundle["dsseEnvelope"]


def other_payload(bundle: dict[str, Any]) -> None:
    payload = statement(IMAGE.digest, annotations={"stage": "production"})
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()


def no_entry(bundle: dict[str, Any]) -> None:
    bundle["verificationMaterial"]["tlogEntries"] = []


def other_signature(bundle: dict[str, Any]) -> None:
    signatures = recorded("bundle image").bundle["dsseEnvelope"]["signatures"]
    bundle["dsseEnvelope"]["signatures"] = signatures


def other_root(bundle: dict[str, Any]) -> None:
    fake = Key()
    bundle["verificationMaterial"]["certificate"]["rawBytes"] = base64.b64encode(
        fake.certificate(IDENTITY, ISSUER)
    ).decode()


@dataclass(frozen=True)
class Case:
    """What is pushed, what is said of it, and whom it is refused for."""

    push: Callable[[Registry], object]
    said: str
    wanted: Wanted = KEYLESS


REFUSED = {
    "a signature of another identity": Case(
        lambda r: tag(r, "simple stranger"),
        f"is by {IDENTITY.replace('main', 'fork')} (issuer {ISSUER}): another identity",
    ),
    "a bundle of another identity": Case(
        lambda r: refer(r, "bundle stranger"),
        f"is by {IDENTITY.replace('main', 'fork')} (issuer {ISSUER}): another identity",
    ),
    "a signature of another issuer": Case(
        lambda r: tag(r, "simple issuer"),
        f"is by {IDENTITY} (issuer https://accounts.example.org): another issuer",
    ),
    "a bundle of another issuer": Case(
        lambda r: refer(r, "bundle issuer"),
        f"is by {IDENTITY} (issuer https://accounts.example.org): another issuer",
    ),
    "an identity that a pattern matches in part": Case(
        lambda r: refer(r, "bundle image"),
        "another identity",
        Wanted("re:https://github.com/org/repo/", ISSUER, trust_root=ROOT),
    ),
    "a signature of another image": Case(
        lambda r: tag(r, "simple other"), f"is a signature of {OTHER.digest}: another image"
    ),
    "a bundle of another image": Case(
        lambda r: refer(r, "bundle other"), f"is a signature of {OTHER.digest}: another image"
    ),
    "a signature that the log saw after the certificate": Case(
        lambda r: tag(r, "simple late"), "failed to build timestamp certificate chain"
    ),
    "a bundle that the log saw after the certificate": Case(
        lambda r: refer(r, "bundle late"), "failed to build timestamp certificate chain"
    ),
    "a proof with another root": Case(
        bundles(broken("bundle image", zeros)), "inclusion proof contains invalid root hash"
    ),
    "a proof of another size": Case(
        bundles(broken("bundle image", another_leaf)), "inclusion proof has wrong size"
    ),
    "a checkpoint that the log did not sign": Case(
        bundles(broken("bundle image", unsigned_checkpoint)), "invalid log entry: checkpoint"
    ),
    "a time that the log did not promise": Case(
        bundles(broken("bundle image", later)), "invalid inclusion promise"
    ),
    "an entry of another bundle": Case(
        bundles(broken("bundle image", swapped_entry)), "log entry payload hash does not match"
    ),
    "an envelope of another bundle": Case(
        bundles(broken("bundle image", swapped_envelope)), "is not valid: DSSE: invalid signature"
    ),
    "a payload that nobody signed": Case(
        bundles(broken("bundle image", other_payload)), "is not valid: DSSE: invalid signature"
    ),
    "a time stamp of another signature": Case(
        bundles(broken("bundle of Rekor 2", other_signature)), "not enough sources of verified time"
    ),
    "an entry of Rekor 2 for something else": Case(
        bundles(broken("bundle of Rekor 2", other_payload)), "DSSE: invalid signature"
    ),
    "a bundle without an entry": Case(
        bundles(broken("bundle image", no_entry)), "expected exactly one log entry in bundle"
    ),
    "a certificate of nobody's": Case(
        bundles(broken("bundle image", other_root)), "failed to build timestamp certificate chain"
    ),
    "a promise of another signature": Case(
        swapped_promise, "transparency log entry is inconsistent with other materials"
    ),
    "a promise of another time": Case(
        promised(Payload={"integratedTime": recorded("simple image").entry["integratedTime"] + 1}),
        "invalid log entry: SET: invalid inclusion promise",
    ),
    "a promise of another place in the log": Case(
        promised(Payload={"logIndex": 7}), "invalid log entry: SET: invalid inclusion promise"
    ),
    "a promise that somebody else signed": Case(
        promised(SignedEntryTimestamp=Key().sign(b"promise")),
        "invalid log entry: SET: invalid inclusion promise",
    ),
    "a signature without a promise": Case(
        without("dev.sigstore.cosign/bundle"), "has no certificate"
    ),
    "a signature without a certificate": Case(
        without("dev.sigstore.cosign/certificate"), "has no certificate"
    ),
    "a layer without a signature": Case(
        without("dev.cosignproject.cosign/signature"), "lacks its signature"
    ),
    "what is no bundle": Case(bundles(b"[]"), "it is not a JSON object"),
    "a bundle that says nothing": Case(
        bundles(broken("bundle image", lambda b: b.pop("dsseEnvelope"))),
        "is a bundle without a DSSE envelope",
    ),
    "a bundle of a kind that does not exist": Case(
        bundles(broken("bundle image", lambda b: b.update(mediaType="application/x"))),
        "is not valid: failed to load bundle: 1 validation error for Bundle mediaType",
    ),
    "an attestation in place of a signature": Case(
        lambda r: refer(r, "provenance"), f"is an attestation of type {SLSA}"
    ),
    "a signature in place of an attestation": Case(
        lambda r: refer(r, "bundle image"),
        "is a signature",
        Wanted(IDENTITY, ISSUER, attestation=SLSA, trust_root=ROOT),
    ),
    "an attestation of another identity": Case(
        lambda r: refer(r, "provenance stranger"),
        "another identity",
        Wanted(IDENTITY, ISSUER, attestation=SLSA, trust_root=ROOT),
    ),
    "another annotation": Case(
        lambda r: refer(r, "bundle annotated"),
        "has the annotation stage='tested', not 'production'",
        Wanted(IDENTITY, ISSUER, annotations=(("stage", "production"),), trust_root=ROOT),
    ),
    "no annotation": Case(
        lambda r: tag(r, "simple image"),
        "has the annotation stage=None, not 'tested'",
        Wanted(IDENTITY, ISSUER, annotations=(("stage", "tested"),), trust_root=ROOT),
    ),
    "a key in place of an identity": Case(
        lambda r: attach_tag(r, REPOSITORY, IMAGE.digest, Key().layer(simple(IMAGE.digest))),
        "has no certificate: a key signed it",
    ),
    "a key's bundle in place of an identity": Case(
        lambda r: attach(r, IMAGE, Key().bundle(statement(IMAGE.digest))),
        "has no certificate: a key signed it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(registry: Registry, tmp_path: Path, name: str) -> None:
    """Whatever is not proven right is refused, and the error says what was found and wanted."""
    case = REFUSED[name]
    registry.push(REPOSITORY, "latest", IMAGE)
    case.push(registry)
    with pytest.raises(UntrustedError) as refusal:
        judged(registry, tmp_path, case.wanted)
    assert case.said in refusal.value.what
    assert f"of {IMAGE.digest} there has to be {case.wanted}" in refusal.value.what
    assert not refusal.value.temporary


TRUSTED: dict[str, tuple[Callable[[Registry], object], Wanted]] = {
    "cosign 2": (lambda r: tag(r, "simple image"), KEYLESS),
    "cosign 3": (lambda r: refer(r, "bundle image"), KEYLESS),
    "a pattern": (
        lambda r: refer(r, "bundle image"),
        Wanted(PATTERN, ISSUER, trust_root=ROOT),
    ),
    "one of several signatures": (
        lambda r: tag(r, "simple stranger", "simple image", "simple other"),
        KEYLESS,
    ),
    "one of several bundles": (
        lambda r: refer(r, "bundle stranger", "bundle image", "provenance"),
        KEYLESS,
    ),
    "an annotation of cosign 2": (
        lambda r: tag(r, "simple annotated"),
        Wanted(IDENTITY, ISSUER, annotations=(("stage", "tested"),), trust_root=ROOT),
    ),
    "an annotation of cosign 3": (
        lambda r: refer(r, "bundle annotated"),
        Wanted(IDENTITY, ISSUER, annotations=(("stage", "tested"),), trust_root=ROOT),
    ),
    "an attestation of cosign 3": (
        lambda r: refer(r, "provenance"),
        Wanted(IDENTITY, ISSUER, attestation=SLSA, trust_root=ROOT),
    ),
    "an attestation of cosign 2": (
        lambda r: attach_tag(
            r, REPOSITORY, IMAGE.digest, recorded("provenance").attestation, suffix="att"
        ),
        Wanted(IDENTITY, ISSUER, attestation=SLSA, trust_root=ROOT),
    ),
}


@pytest.mark.parametrize("name", TRUSTED)
def test_trusted(registry: Registry, tmp_path: Path, name: str) -> None:
    """A signature of each form and place vouches, and it is told who signed, and when."""
    push, wanted = TRUSTED[name]
    registry.push(REPOSITORY, "latest", IMAGE)
    push(registry)
    (voucher,) = judged(registry, tmp_path, wanted)
    assert (voucher.digest, voucher.identity, voucher.issuer) == (IMAGE.digest, IDENTITY, ISSUER)
    assert voucher.key == ""
    first = [one for one, request in REQUESTS.items() if request.rekor == 1]
    logged = {recorded(one).entry["logIndex"]: recorded(one) for one in first}
    assert voucher.log_index in logged
    assert voucher.time is not None
    assert voucher.time.timestamp() == logged[voucher.log_index].entry["integratedTime"]


def test_rekor_2(registry: Registry, tmp_path: Path) -> None:
    """A bundle of Rekor 2 has its time from a time stamp, and none without it."""
    registry.push(REPOSITORY, "latest", IMAGE)
    stamp = "timestampVerificationData"
    bundle = broken("bundle of Rekor 2", lambda b: b["verificationMaterial"].pop(stamp))
    attach(registry, IMAGE, bundle)
    with pytest.raises(UntrustedError, match="inclusion promise or signed timestamp"):
        judged(registry, tmp_path)
    attach(registry, IMAGE, recorded("bundle of Rekor 2").bundle)
    (voucher,) = judged(registry, tmp_path)
    assert (voucher.identity, voucher.log_index) == (IDENTITY, 0)
    assert voucher.time is not None
    certificate = x509.load_der_x509_certificate(
        base64.b64decode(recorded("bundle of Rekor 2").parts["certificate"])
    )
    assert certificate.not_valid_before_utc <= voucher.time <= certificate.not_valid_after_utc


@pytest.mark.parametrize("form", ["cosign 2", "cosign 3"])
def test_index(registry: Registry, tmp_path: Path, form: str) -> None:
    """A signature of the index vouches for the image of a platform in it."""
    registry.push(REPOSITORY, "latest", INDEX)
    if form == "cosign 2":
        attach_tag(registry, REPOSITORY, INDEX.digest, recorded("simple index").layer)
    else:
        attach(registry, INDEX, recorded("bundle index").bundle)
    both = subject(registry, INDEX.digest, IMAGE.digest)
    (voucher,) = Judge(tmp_path).require(both, Policy((KEYLESS,)))
    assert voucher.digest == INDEX.digest
    with pytest.raises(UnsignedError):
        Judge(tmp_path).require(subject(registry), Policy((KEYLESS,)))


def test_manifest_in_index(registry: Registry, tmp_path: Path) -> None:
    """A signature of the platform's manifest vouches, whatever index names it."""
    registry.push(REPOSITORY, "latest", INDEX)
    refer(registry, "bundle image")
    both = subject(registry, INDEX.digest, IMAGE.digest)
    (voucher,) = Judge(tmp_path).require(both, Policy((KEYLESS,)))
    assert voucher.digest == IMAGE.digest


@pytest.mark.parametrize("form", ["cosign 2", "cosign 3"])
def test_key(registry: Registry, tmp_path: Path, key: Key, form: str) -> None:
    """A signature by a key vouches where the policy names the key, and by no other key."""
    registry.push(REPOSITORY, "latest", IMAGE)
    if form == "cosign 2":
        attach_tag(registry, REPOSITORY, IMAGE.digest, key.layer(simple(IMAGE.digest)))
    else:
        attach(registry, IMAGE, key.bundle(statement(IMAGE.digest)))
    (voucher,) = judged(registry, tmp_path, Wanted(key_file=key.write(tmp_path / "cosign.pub")))
    assert voucher.key.startswith("sha256:")
    assert (voucher.identity, voucher.log_index, voucher.time) == ("", None, None)
    other = Wanted(key_file=Key().write(tmp_path / "other.pub"))
    with pytest.raises(UntrustedError, match="is not by the key sha256:"):
        judged(registry, tmp_path, other)


def test_key_needs_no_sigstore(tmp_path: Path) -> None:
    """A policy of keys loads neither sigstore nor tuf."""
    Key().write(tmp_path / "cosign.pub")
    program = (
        "import sys, pathlib\n"
        "from syncd.trust import Judge, Policy, Wanted\n"
        f"policy = Policy((Wanted(key_file=pathlib.Path({str(tmp_path / 'cosign.pub')!r})),))\n"
        f"Judge(pathlib.Path({str(tmp_path)!r})).prepare(policy)\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'sigstore', 'tuf'})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_all(registry: Registry, tmp_path: Path, key: Key) -> None:
    """Where all are required, one alone is not enough, and the error says which one lacks."""
    registry.push(REPOSITORY, "latest", IMAGE)
    refer(registry, "bundle image")
    by_key = Wanted(key_file=key.write(tmp_path / "cosign.pub"))
    assert len(judged(registry, tmp_path, by_key, KEYLESS)) == 1
    with pytest.raises(UntrustedError) as refusal:
        judged(registry, tmp_path, by_key, KEYLESS, require_all=True)
    assert f"there has to be {by_key}; found:" in refusal.value.what
    attach_tag(registry, REPOSITORY, IMAGE.digest, key.layer(simple(IMAGE.digest)))
    vouchers = judged(registry, tmp_path, by_key, KEYLESS, require_all=True)
    assert [bool(voucher.key) for voucher in vouchers] == [True, False]


def test_unsigned(registry: Registry, tmp_path: Path) -> None:
    """An image without a signature is refused, for now: a build signs after it pushed."""
    registry.push(REPOSITORY, "latest", IMAGE)
    with pytest.raises(UnsignedError, match="found: no signature at all") as refusal:
        judged(registry, tmp_path)
    assert refusal.value.temporary


def test_list_that_lies(tmp_path: Path) -> None:
    """What a list of referrers says counts for nothing: what it names is looked at."""
    with Registry() as registry:
        registry.lists_referrers = True
        registry.push(REPOSITORY, "latest", IMAGE)
        foreign = referrer(OTHER, recorded("bundle image").bundle)
        for content in (foreign, IMAGE):
            registry.push(REPOSITORY, "pushed", content)
        bundle = {"artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json"}
        absent = document({"mediaType": foreign.descriptor["mediaType"]}, {})
        registry.faults.referrers = [
            {"mediaType": "text/plain"},
            {**absent.descriptor, **bundle},
            {**foreign.descriptor, **bundle},
            {**foreign.descriptor, **bundle, "digest": IMAGE.digest, "size": 1},
            {**IMAGE.descriptor, **bundle},
        ]
        with pytest.raises(UntrustedError) as refusal:
            judged(registry, tmp_path)
        said = refusal.value.what
        assert f"referrer {absent.digest}: registry 127.0.0.1" in said
        assert f"referrer {foreign.digest} refers to {OTHER.digest}, not to this image" in said
        assert f"referrer {IMAGE.digest}" in said
        refer(registry, "bundle image")
        registry.faults.referrers += [
            {**referrer(IMAGE, recorded("bundle image").bundle).descriptor, **bundle}
        ]
        assert len(judged(registry, tmp_path)) == 1


def test_ten_thousand_referrers(tmp_path: Path) -> None:
    """Of ten thousand referrers a hundred are looked at, and the error says so."""
    with Registry() as registry:
        registry.lists_referrers = True
        registry.push(REPOSITORY, "latest", IMAGE)
        first = referrer(IMAGE, recorded("bundle stranger").bundle)
        registry.push(REPOSITORY, "pushed", first)
        kind = {"artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json"}
        flood = [{**first.descriptor, **kind, "digest": f"sha256:{n:064x}"} for n in range(9999)]
        registry.faults.referrers = [{**first.descriptor, **kind}, *flood]
        registry.requests.clear()
        with pytest.raises(UntrustedError) as refusal:
            judged(registry, tmp_path)
        assert "; and " in refusal.value.what
        documents = [path for _, path in registry.requests if "/referrers/" not in path]
        assert len(documents) < 300
        pages = [path for _, path in registry.requests if "/referrers/" in path]
        assert len(pages) == 10


def test_many_signatures_under_a_tag(tmp_path: Path) -> None:
    """Of a tag's signatures the newest are looked at, which stand last."""
    with Registry() as registry:
        registry.push(REPOSITORY, "latest", IMAGE)
        old = [recorded("simple stranger").layer] * 150
        attach_tag(registry, REPOSITORY, IMAGE.digest, *old, recorded("simple image").layer)
        assert len(judged(registry, tmp_path)) == 1
        attach_tag(registry, REPOSITORY, IMAGE.digest, recorded("simple image").layer, *old)
        with pytest.raises(UntrustedError, match="another identity"):
            judged(registry, tmp_path)


def test_silent_registry(tmp_path: Path) -> None:
    """A registry that does not answer is no evidence that there is no signature."""
    with Registry() as registry:
        registry.lists_referrers = True
        registry.push(REPOSITORY, "latest", IMAGE)
        registry.faults.refusals = [(503, {}, b"")] * 20
        with pytest.raises(RegistryUnavailableError):
            judged(registry, tmp_path)


def test_key_without_the_trust_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where any signer is enough, one with a key is, also while the public root is out of reach."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    key, public = Key(), Wanted(IDENTITY, ISSUER)
    by_key = Wanted(key_file=key.write(tmp_path / "cosign.pub"))
    with Registry() as registry:
        registry.push(REPOSITORY, "latest", IMAGE)
        refer(registry, "bundle image")
        judge, image = Judge(tmp_path), subject(registry)
        judge.prepare(Policy((public, by_key)))
        with pytest.raises(TrustRootUnavailableError):
            judge.require(image, Policy((public, by_key)))
        for policy in (Policy((public,)), Policy((public, by_key), require_all=True)):
            with pytest.raises(TrustRootUnavailableError):
                judge.prepare(policy)
        attach_tag(registry, REPOSITORY, IMAGE.digest, key.layer(simple(IMAGE.digest)))
        (voucher,) = judge.require(image, Policy((public, by_key)))
        assert voucher.key


def test_layers_of_a_referrer(tmp_path: Path) -> None:
    """A referrer of ten thousand layers is not read to its end."""
    with Registry() as registry:
        registry.lists_referrers = True
        registry.push(REPOSITORY, "latest", IMAGE)
        content = referrer(IMAGE, recorded("bundle stranger").bundle)
        (layer,) = content.document["layers"]
        flood = referrer(IMAGE, recorded("bundle stranger").bundle, layers=[layer] * 10_000)
        registry.push(REPOSITORY, "pushed", flood)
        registry.requests.clear()
        with pytest.raises(UntrustedError):
            judged(registry, tmp_path)
        assert len(registry.requests) < 110


def test_missing_key(tmp_path: Path) -> None:
    """A policy whose key is missing, or is no key, trusts nothing."""
    with Registry() as registry:
        registry.push(REPOSITORY, "latest", IMAGE)
        attach_tag(registry, REPOSITORY, IMAGE.digest, Key().layer(simple(IMAGE.digest)))
        wanted = Wanted(key_file=tmp_path / "cosign.pub")
        with pytest.raises(TrustError, match=r"cosign.pub, which \[image.verify\] names, cannot"):
            judged(registry, tmp_path, wanted)
        (tmp_path / "cosign.pub").write_text("-----BEGIN PRIVATE KEY-----\n")
        with pytest.raises(TrustError, match="has no public key in PEM"):
            judged(registry, tmp_path, wanted)


def test_missing_trust_root(registry: Registry, tmp_path: Path) -> None:
    """A trust root that is missing, or is none, trusts nothing."""
    registry.push(REPOSITORY, "latest", IMAGE)
    refer(registry, "bundle image")
    file = tmp_path / "trusted_root.json"
    wanted = Wanted(IDENTITY, ISSUER, trust_root=file)
    with pytest.raises(TrustError, match=r"trusted_root.json, which \[image.verify\] names"):
        judged(registry, tmp_path, wanted)
    file.write_text('{"mediaType": "text/plain"}')
    with pytest.raises(TrustError, match="is no trust root of Sigstore"):
        judged(registry, tmp_path, wanted)


def test_another_trust_root(registry: Registry, tmp_path: Path) -> None:
    """A private trust root trusts nothing that another Sigstore signed."""
    root = json.loads(ROOT.read_text())
    other = Key().certificate("https://other.example.org", ISSUER)
    chain = {"certificates": [{"rawBytes": base64.b64encode(other).decode()}]}
    root["certificateAuthorities"][0]["certChain"] = chain
    (tmp_path / "root.json").write_text(json.dumps(root))
    registry.push(REPOSITORY, "latest", IMAGE)
    refer(registry, "bundle image")
    with pytest.raises(UntrustedError, match="failed to build timestamp certificate chain"):
        judged(registry, tmp_path, Wanted(IDENTITY, ISSUER, trust_root=tmp_path / "root.json"))


def test_examined(registry: Registry, tmp_path: Path, key: Key) -> None:
    """Of every signature and attestation it is told who is behind it, or what is wrong."""
    registry.push(REPOSITORY, "latest", IMAGE)
    refer(registry, "bundle stranger", "provenance")
    attach_tag(
        registry,
        REPOSITORY,
        IMAGE.digest,
        recorded("simple other").layer,
        key.layer(simple(IMAGE.digest)),
    )
    by_key = Wanted(key_file=key.write(tmp_path / "cosign.pub"))
    told = Judge(tmp_path).examine(subject(registry), Policy((by_key, KEYLESS)))
    found = {(one.voucher.what, one.voucher.identity) for one in told if one.voucher}
    stranger = IDENTITY.replace("main", "fork")
    what = f"an attestation of type {SLSA}"
    assert found == {("a signature", stranger), (what, IDENTITY), ("a signature", "")}
    (fault,) = [one.fault for one in told if not one.voucher]
    assert f"is a signature of {OTHER.digest}: another image" in fault


def test_fingerprint(tmp_path: Path, key: Key) -> None:
    """A policy is another one when its key's file is, and the same when it is only read again."""
    wanted = Policy((Wanted(key_file=key.write(tmp_path / "cosign.pub")),))
    before = wanted.fingerprint()
    assert wanted.fingerprint() == before
    Key().write(tmp_path / "cosign.pub")
    assert wanted.fingerprint() != before
    assert Policy((KEYLESS,)).fingerprint() != Policy((KEYLESS,), require_all=True).fingerprint()
