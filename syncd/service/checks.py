"""What `syncd check` finds out, without changing anything but a probe that is deleted again.

It is true of the process that looks: its user, its sandbox, its credentials.  So the running
daemon is asked where there is one, and a transient unit like it where there is none
(`syncd.cli.unit`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from syncd.config import Config, ImageSettings, ServerSettings, check_secret
from syncd.errors import ConfigError, NotFoundError, RegistryUnavailableError, SyncdError
from syncd.files import free_and_total
from syncd.oci import GITHUBS_REGISTRY, Reference
from syncd.oci.registry import Registry, token_expiry
from syncd.service.condition_checks import condition_results
from syncd.service.github_checks import address_results, github_results
from syncd.service.live_config import targets_of
from syncd.service.mirror_checks import mirror_results
from syncd.service.notification_checks import notification_results
from syncd.service.signature_checks import signature_results
from syncd.sync import Ledger, conditions_now
from syncd.targets import CheckResult, Target

SKEW = timedelta(seconds=60)
"""How far this host's clock may be off: tokens and signatures are valid from and to a second."""
EXPIRY = timedelta(days=7)
"""How long before its end a token is a fault: a weekly look is enough to see it in time."""

# The check may be typed in a shell; the secrets may be credentials, which the service alone gets.
_SERVICE = "{} answers 503, unless systemd gives the service its credential"


def check_results(config: Config) -> list[CheckResult]:
    """Return everything that was looked at, good and bad."""
    found = [*_secrets(config), *_expiry(config), *_state(config)]
    skews: dict[str, timedelta | None] = {}
    for image in config.image:
        registry = _registry(config, image.reference)
        found += _tags(registry, image)
        skews[image.reference.registry] = registry.skew
    found += _clocks(skews)
    found += mirror_results(config)
    found += signature_results(config, _registry)
    found += github_results(config)
    found += address_results(config, datetime.now(UTC))
    targets = targets_of(config)
    for target in targets.values():
        found += target.check()
    return [*found, *_of_ledger(config, targets)]


def _of_ledger(config: Config, targets: Mapping[str, Target]) -> Iterator[CheckResult]:
    """Look at notifications, and at what the ledger knows, if there is one."""
    path = config.state.paths.ledger
    try:
        yield from notification_results(config)
        if not path.exists():
            return
        with Ledger(path) as ledger:
            yield from _owners(config, targets, ledger)
            conditions = conditions_now(config, ledger.conditions.all())
            swept = ledger.figures.runs().get("sweep")
        yield from condition_results(config, conditions, swept, datetime.now(UTC))
    except OSError as exc:
        yield CheckResult(False, "ledger", f"{path} cannot be looked at: {exc.strerror}")
    except SyncdError as exc:
        yield CheckResult(False, "ledger", str(exc))


def _owners(config: Config, targets: Mapping[str, Target], ledger: Ledger) -> Iterator[CheckResult]:
    """Look who may change the published files that this host can read.

    They belong to root, to the user who checks, or to the user of the service, who owns the state;
    others may not write them.  A file that has a second name may be changed through that name.
    """
    allowed = {0, os.geteuid(), config.state.directory.stat().st_uid}
    names = {(row.target, row.name): None for row in ledger.templates()}
    for name in targets:
        faults, looked_at = [], 0
        for file in (targets[name].local(each) for owner, each in names if owner == name):
            with suppress(FileNotFoundError):
                status = file.lstat() if file else None
                if status is None:
                    continue
                looked_at += 1
                if status.st_uid not in allowed:
                    faults.append(f"{file} belongs to the user {status.st_uid}")
                elif stat.S_IMODE(status.st_mode) & 0o022:
                    faults.append(f"{file} may be written by others")
                elif status.st_nlink > 1:
                    faults.append(f"{file} has a second name elsewhere (a hard link)")
        if faults:
            remedy = "delete these files, and syncd publishes them anew"
            yield CheckResult(False, f"files of target {name}", f"{'; '.join(faults)}; {remedy}")
        elif looked_at:
            yield CheckResult(
                True, f"files of target {name}", f"{looked_at} belong to root or syncd"
            )


def _secrets(config: Config) -> Iterator[CheckResult]:
    server = config.server
    for subject, read, file, credential, path in (
        ("webhook secret", server.webhook_secret, server.webhook_secret_file, "webhook-secret",
         "/webhooks"),
        ("API token", server.api_token, server.api_token_file, "api-token", "/api"),
    ):  # fmt: skip
        yield _tried(subject, _strong, read, file, credential, _SERVICE.format(path))
    for sender in config.sender:
        path = f"/webhooks/{sender.type}"
        subject = f"secret of a sender at {path}, {sender.secret_file}"
        yield _tried(subject, _strong, sender.secret, sender.secret_file, "", _SERVICE.format(path))
    yield from _tokens(server)
    yield from _others(config)
    for registry in config.registry:
        if registry.username:
            yield _tried(f"registry {registry.host}", _there, registry.credentials, "anonymous")


def _tokens(server: ServerSettings) -> Iterator[CheckResult]:
    """Look at the tokens of one scope, those that there are: none may be another's, too."""
    known = {server.api_token_file}
    for scope, read, file in (
        ("create", server.create_token, server.create_token_file),
        ("sync", server.sync_token, server.sync_token_file),
        ("read", server.read_token, server.read_token_file),
    ):
        if file is not None:
            yield _tried(f"{scope} token", _strong, read, file, f"{scope}-token", "")
            if file in known:
                told = f"{file} is named for another token, too, and has the scopes of both"
                yield CheckResult(False, f"{scope} token", f"{told}; make one of its own")
            known.add(file)


def _tags(registry: Registry, image: ImageSettings) -> Iterator[CheckResult]:
    """Resolve every tag that is given by name, one HEAD each, and count those by pattern."""
    for tag in image.fixed_tags:
        reference = image.reference.with_tag(tag)
        yield _tried(f"image {reference}", _digest, registry, reference)
    if image.has_patterns:
        yield _tried(f"image {image.repository}, tags by pattern", _matching, registry, image)


def _clocks(skews: Mapping[str, timedelta | None]) -> Iterator[CheckResult]:
    """Compare this host's clock with those of the registries."""
    for host, skew in skews.items():
        if skew is None:
            continue
        seconds = abs(skew.total_seconds())
        if abs(skew) <= SKEW:
            yield CheckResult(True, f"clock, by {host}", "right within a minute")
        else:
            way = "behind" if skew > timedelta() else "ahead of"
            yield CheckResult(
                False,
                f"clock, by {host}",
                f"this host is {seconds:.0f} s {way} it; have timesyncd or chrony set the clock "
                "(timedatectl)",
            )


def _expiry(config: Config) -> Iterator[CheckResult]:
    """Look when the tokens for GitHub's registry and API end, where GitHub tells."""
    with suppress(ConfigError):  # which another line tells
        login = config.registry_for(GITHUBS_REGISTRY).credentials()
        if login is not None and any(
            image.reference.registry == GITHUBS_REGISTRY for image in config.image
        ):
            yield _end(f"token of {GITHUBS_REGISTRY}", login[1])
    with suppress(ConfigError):
        github, token = config.github, config.github.token()
        if token is not None:
            yield _end("token of GitHub's API", token, github.api, github.ca_file)


def _end(subject: str, token: str, *where: Any) -> CheckResult:
    try:
        return _ends(subject, token_expiry(token, *where))
    except RegistryUnavailableError as exc:
        return CheckResult(True, subject, f"nobody tells when it ends: {exc}")
    except SyncdError as exc:
        return CheckResult(False, subject, str(exc))


def _ends(subject: str, end: datetime | None) -> CheckResult:
    if end is None:
        return CheckResult(True, subject, "GitHub names no end")
    left, when = end - datetime.now(UTC), f"{end.astimezone():%Y-%m-%d %H:%M %Z}"
    if left <= timedelta():
        return CheckResult(False, subject, f"expired on {when}: make another one")
    detail = f"ends on {when}, in {left.days} days"
    return CheckResult(left > EXPIRY, subject, detail if left > EXPIRY else f"{detail}: renew it")


def _state(config: Config) -> Iterator[CheckResult]:
    """Look for room beside the reserve where the state is or will be."""
    state = config.state
    try:
        free, _ = free_and_total(state.directory.absolute())
    except OSError as exc:
        yield CheckResult(False, "state", f"{state.directory} cannot be looked at: {exc.strerror}")
        return
    detail = f"{state.directory} has {free / 1e9:.1f} GB free"
    if free < state.reserve:
        detail += f", less than the reserve of {state.reserve / 1e9:.1f} GB: no job begins"
    yield CheckResult(free >= state.reserve, "state", detail)


def _tried(subject: str, act: Callable[..., str], *arguments: object) -> CheckResult:
    try:
        return CheckResult(True, subject, act(*arguments))
    except SyncdError as exc:
        return CheckResult(False, subject, str(exc))


def _there(read: Callable[[], object], without: str) -> str:
    return "readable" if read() else f"not configured: {without}"


def _strong(read: Callable[[], object], file: Path | None, credential: str, without: str) -> str:
    check_secret(file, credential, guessed=True)
    return _there(read, without)


def _others(config: Config) -> Iterator[CheckResult]:
    """Look at the files of all other secrets; only what is wrong is told."""
    files = [registry.password_file for registry in config.registry]
    files += [target.token_secret_file for target in config.target if target.type == "proxmox"]
    files += [config.notify.urls_file, config.notify.ping_url_file, config.github.token_file]
    for file in files:
        try:
            check_secret(file)
        except ConfigError as exc:
            yield CheckResult(False, f"secret file {file}", str(exc))


def _digest(registry: Registry, reference: Reference) -> str:
    return str(registry.resolve(reference).digest)


def _matching(registry: Registry, image: ImageSettings) -> str:
    tags = registry.tags()
    if idle := image.idle_patterns(tags):
        raise NotFoundError(
            f"none of the registry's {len(tags)} tags is matched by {' or '.join(idle)}",
            "mend the pattern, or push such a tag",
        )
    newest, found = image.rules.newest, sum(map(image.watches, tags))
    if newest is not None and newest.count < found:
        return f"the newest {newest.count} of {found} of the registry's tags are watched"
    return f"{found} of the registry's tags are watched"


def _registry(config: Config, repository: Reference) -> Registry:
    access = config.registry_for(repository.registry)
    return Registry(repository, access, config.limits.bounds())
