"""A whole syncd in the test's own process: its parts, its HTTP server, a registry behind it.

    async with Harness(tmp_path, registry) as harness:
        await harness.deliver(body)

Everything is the real thing, put together as the daemon does it; only the registry is a double.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, BaseRunner
from jsonschema import Draft202012Validator

from syncd.config.load import load_config
from syncd.convert import ConversionProcesses
from syncd.oci.reference import Reference
from syncd.progress import Progress, Silence
from syncd.service.live_config import LiveConfig
from syncd.service.services import Services, assemble
from syncd.sync.job import Cause, Outcome, SyncJob
from syncd.web.app import application, http_runner
from syncd.web.backend import HttpLimits
from syncd.web.openapi import api_description
from tests.archives import file
from tests.clusters import LAUNCHING, token_for
from tests.clusters import TOKEN as TOKEN_ID
from tests.deliveries import SECRET, signed
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Token
from tests.fakes.registry import Registry
from tests.images import Content, image, layer

REPOSITORY = "org/repo/image"
TOKEN = "a token of the API"
ON_DEMAND = 'settle = "0s"\non_demand = ["*/**"]'
"""The lines of [server] by which callers may have any image brought."""
DOCUMENT = api_description()


def sample(text: str = "one") -> Content:
    """Return a small image with this text in it."""
    return image(layer(file("base", b"the same in each")), layer(file("text", text.encode())))


def configure(
    folder: Path,
    registry: Registry,
    *,
    server: str = "",
    access: str = "",
    image: str = "",
    more: str = "",
) -> Path:
    """Write a configuration and its secrets; the arguments are lines of its tables."""
    for name, secret in (("webhook-secret", SECRET), ("api-token", TOKEN)):
        (folder / name).write_text(f"{secret}\n")
        (folder / name).chmod(0o600)
    path = folder / "syncd.toml"
    path.write_text(f"""\
[server]
webhook_secret_file = "{folder}/webhook-secret"
api_token_file = "{folder}/api-token"
{server or 'settle = "0s"'}
[state]
directory = "{folder}/state"
[[registry]]
host = "{registry.address}"
plain_http = true
{access}
[[image]]
repository = "{registry.address}/{REPOSITORY}"
{image}
[[target]]
name = "local"
type = "directory"
path = "{folder}/storage"
{more}
""")
    return path


def described(answer: ClientResponse, path: str) -> Any:
    """Return an answer's JSON after holding it against the API's description."""
    said = DOCUMENT["paths"][path][answer.method.lower()]["responses"][str(answer.status)]
    if "$ref" in said:
        said = DOCUMENT["components"]["responses"][said["$ref"].rpartition("/")[2]]
    schema = said["content"][answer.content_type]["schema"]
    content = json.loads(answer._body or b"null")
    Draft202012Validator(
        {**schema, "components": DOCUMENT["components"]},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    ).validate(content)
    return content


def cluster_table(folder: Path, pve: Pve, token: Token, **settings: str) -> str:
    """Return the table of a target on a make-believe cluster, and write its token's secret."""
    secret = folder / "token-secret"
    secret.write_text(f"{token.secret}\n")
    secret.chmod(0o600)
    lines = {
        "name": "cluster",
        "type": "proxmox",
        "token_id": TOKEN_ID,
        "token_secret_file": secret,
        "ca_file": pve.certificate.file,
        "storage": "local",
    }
    text = "".join(f'{key} = "{value}"\n' for key, value in (lines | settings).items())
    return f'[[target]]\nendpoints = ["https://127.0.0.1:{pve.port}"]\n{text}'


def on_cluster(
    folder: Path, registry: Registry, pve: Pve, *, image: str = "", **settings: str
) -> Harness:
    """Return a harness whose one image goes to the cluster alone; `settings` are of its target.

    The token may make containers, of any image.
    """
    table = cluster_table(folder, pve, token_for(pve, LAUNCHING), **settings)
    image = f'targets = ["cluster"]\n{image}'
    return Harness(folder, registry, image=image, server=ON_DEMAND, more=table)


class ServedHouse(TestServer):
    """The application, served as the daemon serves it."""

    def __init__(self, app: Application, limits: HttpLimits | None) -> None:
        super().__init__(app)
        self._limits = limits

    async def _make_runner(self, **_: Any) -> BaseRunner:
        return http_runner(self.app, self._limits)


class Harness:
    """The parts of a daemon on the configuration that `configure` writes with `tables`."""

    services: Services
    client: TestClient[Any, Any]

    def __init__(
        self,
        folder: Path,
        registry: Registry,
        watch: Callable[[Reference], Progress] = lambda _: Silence(),
        limits: HttpLimits | None = None,
        processes: ConversionProcesses | None = None,
        **tables: str,
    ) -> None:
        self.folder = folder
        self.config = configure(folder, registry, **tables)
        self.repository = Reference.parse(f"{registry.address}/{REPOSITORY}")
        self.latest = self.repository.with_tag("latest")
        self._watch = watch
        self._limits = limits
        self._processes = processes

    async def __aenter__(self) -> Self:
        live = LiveConfig(load_config(self.config), self.config)
        self.services = assemble(live, self._watch, self._processes)
        self.client = TestClient(
            ServedHouse(application(self.services, self._limits), self._limits)
        )
        await self.client.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        await self.services.close()

    async def deliver(
        self, body: bytes, event: str = "package", delivery: str = "1", **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Post a delivery; return status and JSON of the answer."""
        given = signed(body, event, delivery) | headers
        async with self.client.post("/webhooks/github", data=body, headers=given) as answer:
            return answer.status, await answer.json()

    async def ask(
        self, method: str, path: str, *, token: str | None = TOKEN, **request: Any
    ) -> ClientResponse:
        """Make a request with the API's token; return the answer, read to its end."""
        headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"} if token else {}
        headers = {**headers, **request.pop("headers", {})}
        async with self.client.request(method, path, headers=headers, **request) as answer:
            await answer.read()
            return answer

    async def outcome(self, job: str) -> Outcome:
        """Wait for a job's end."""
        async with asyncio.timeout(20):
            while True:  # what runs in threads has no event to wait for
                record = self.services.ledger.job(job)
                if record is not None and record.outcome is not None:
                    return record.outcome
                await asyncio.sleep(0.005)

    def configure(self, **tables: Any) -> None:
        """Put other tables of the configuration in force, without a file."""
        live = self.services.live
        live._config = live.config.model_copy(update=tables)

    async def bring(self, tag: str = "latest") -> Outcome:
        """Bring one tag up to date, without a job in the ledger."""
        return await self.services.engine.sync(SyncJob(self.repository.with_tag(tag), Cause.CLI))

    @property
    def templates(self) -> list[Path]:
        """What stands in the target's folder, hidden files too."""
        return sorted((self.folder / "storage" / "template" / "cache").glob("*"))

    @property
    def spool(self) -> list[Path]:
        """What stands in the spool."""
        return sorted((self.folder / "state" / "spool").glob("*"))
