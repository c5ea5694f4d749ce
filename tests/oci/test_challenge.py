"""What `oci.registry.challenge` promises: challenges are read as RFC 9110 writes them."""

from __future__ import annotations

import pytest

from syncd.oci.registry.challenge import Challenge, choose, parse

REALM = "https://auth.example/token"
BEARER = Challenge("bearer", {"realm": REALM, "service": "s", "scope": "repository:o/r:pull,push"})
BASIC = Challenge("basic", {"realm": "R"})
NEGOTIATE = Challenge("negotiate")
DIGEST = Challenge("digest", {"realm": "d", "qop": "auth,auth-int", "nonce": "x"})
QUOTED = 'a, "Bearer realm=x" \\ b'
TEXT = f'Bearer realm="{REALM}",service="s",scope="repository:o/r:pull,push"'


def bearer(**parameters: str) -> Challenge:
    """Return a Bearer challenge."""
    return Challenge("bearer", parameters)


NO_SCOPE = bearer(realm=REALM, service="s")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([TEXT], [BEARER]),
        ([f'{TEXT}, Basic realm="R"'], [BEARER, BASIC]),
        ([f'Basic realm="R", {TEXT}'], [BASIC, BEARER]),
        (
            ["Negotiate", 'Basic realm="R"'],
            [NEGOTIATE, BASIC],
        ),
        (
            ["Negotiate,NTLM, Basic"],
            [NEGOTIATE, Challenge("ntlm"), Challenge("basic")],
        ),
        ([f"Negotiate YIIC+/9=, {TEXT}"], [Challenge("negotiate", {}, "YIIC+/9="), BEARER]),
        ([f"Negotiate YIIC+/9==,{TEXT}"], [Challenge("negotiate", {}, "YIIC+/9=="), BEARER]),
        (
            [f' ,, BEARER  Realm = "{REALM}" ,\tSERVICE= s,,'],
            [NO_SCOPE],
        ),
        (
            [f'Bearer realm="{REALM}" service="s"'],
            [NO_SCOPE],
        ),
        (
            [f"Bearer realm={REALM},service=s"],
            [NO_SCOPE],
        ),
        (
            [r'Basic realm="a, \"Bearer realm=x\" \\ b"'],
            [Challenge("basic", {"realm": QUOTED})],
        ),
        (
            [f'Bearer scope=,service="",realm="{REALM}"'],
            [bearer(scope="", service="", realm=REALM)],
        ),
        (
            [f'Bearer realm="{REALM}",realm="https://evil.example"'],
            [bearer(realm=REALM)],
        ),
        (
            ['Digest realm="d", qop="auth,auth-int", nonce="x", Basic realm="R"'],
            [
                DIGEST,
                BASIC,
            ],
        ),
        (['Basic realm="never ends', TEXT], [Challenge("basic", {"realm": "never ends"}), BEARER]),
        (['Basic realm="\\'], [Challenge("basic", {"realm": ""})]),
        ([""], []),
        (['="x", "y"'], []),
        (["realm=x"], []),
    ],
)
def test_parse(headers: list[str], expected: list[Challenge]) -> None:
    """Challenges part by the grammar, whatever their number, order, case and spacing."""
    assert parse(headers) == expected


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        ([TEXT, "Basic"], "bearer"),
        (["Basic", TEXT], "bearer"),
        (["Bearer", 'Basic realm="R"'], "basic"),
        (['Bearer realm="Registry"', 'Basic realm="R"'], "basic"),
        (["Bearer"], "bearer"),
        (["NTLM, Basic, Digest realm=x"], "basic"),
        (["Negotiate", "Digest realm=x"], None),
        ([], None),
    ],
)
def test_choose(headers: list[str], scheme: str | None) -> None:
    """Bearer is answered before Basic, Basic before a Bearer without a realm, others never."""
    chosen = choose(parse(headers))
    assert (chosen.scheme if chosen else None) == scheme


def test_long_header() -> None:
    """A header of 64 KiB is read in the time of its length."""
    assert len(parse(["a=" * 32_000, '"' * 64_000, "x, " * 32_000, '\\"' * 32_000])) == 32_000
