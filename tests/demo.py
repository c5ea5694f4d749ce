"""The main job, on nothing but this machine: a push becomes a template.

A registry on loopback gets an image; `syncd run` gets a signed webhook about it, as GitHub sends
one; a template comes out.  Everything happens below `.demo/`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from tests import archives, images
from tests.fakes.registry import Registry

FOLDER = Path(".demo")
SECRET, TOKEN = "a secret between GitHub and syncd", "a token of the API"
REPOSITORY = "demo/images/base"

console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Run the demonstration; exit with 1 when no template comes out."""
    with Registry() as registry:
        registry.push(REPOSITORY, "latest", images.image(images.layer()))
        reference = f"{registry.address}/{REPOSITORY}:latest"
        console.print(f"[bold]1[/] a registry on loopback has [cyan]{reference}[/]")
        with daemon(registry.address) as url:
            console.print(
                f"[bold]2[/] syncd listens on [cyan]{url}[/], and fetches what is new to it"
            )
            finished(url, first_job(url))
            registry.push(REPOSITORY, "latest", sample())
            answer = deliver(url, registry.address)
            console.print(f"[bold]3[/] a signed webhook tells of a push: [cyan]{answer}[/]")
            job = finished(url, answer["jobs"][0])
    if job["outcome"] != "published":
        sys.exit(f"the job ended {job['outcome']}: {job['message']}")
    (volume,) = job["volumes"]
    path = FOLDER / "storage" / "template" / "cache" / volume.rpartition("/")[2]
    console.print(
        f"[bold]4[/] the template is [green]{path}[/] ({path.stat().st_size / 1e6:.1f} MB)"
    )
    console.print(f"[bold]5[/] its volume id is [green]{volume}[/]")


def sample() -> images.Content:
    """Return an image of two layers, with something in them to compress."""
    words = random.Random(1)
    text = "\n".join(str(words.getrandbits(40)) for _ in range(1 << 20)).encode()
    bottom = images.layer(
        archives.directory("usr"),
        archives.file("usr/data", text),
        archives.directory("etc"),
        archives.file("etc/hostname", b"demo\n"),
        archives.file("etc/old", b"a later layer removes this"),
    )
    top = images.layer(archives.whiteout("etc/old"), archives.file("etc/motd", b"hello\n"))
    return images.index(images.image(bottom, top), attestation=True)


@contextmanager
def daemon(address: str) -> Iterator[str]:
    """Run syncd on a written configuration; give its address."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name, secret in (("webhook-secret", SECRET), ("api-token", TOKEN)):
        file = FOLDER / name
        file.touch(mode=0o600)
        file.write_text(secret)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = FOLDER / "syncd.toml"
    config.write_text(f"""\
[server]
listen = "127.0.0.1:{port}"
webhook_secret_file = "{FOLDER}/webhook-secret"
api_token_file = "{FOLDER}/api-token"
settle = "1s"
[state]
directory = "{FOLDER}/state"
[[registry]]
host = "{address}"
plain_http = true
[[image]]
repository = "{address}/{REPOSITORY}"
[[target]]
name = "local"
type = "directory"
path = "{FOLDER}/storage"
""")
    process = subprocess.Popen(
        [sys.executable, "-m", "syncd", "--config", str(config), "run", "--log", "console"]
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            if process.poll() is not None:
                sys.exit("syncd ended at once")
            try:
                urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def deliver(url: str, address: str) -> dict[str, Any]:
    """Post a package event as GitHub does it; return the answer."""
    event = json.loads(Path("tests/data/github/package.published.container.json").read_text())
    event["package"]["package_version"]["package_url"] = f"{address}/{REPOSITORY}:latest"
    body = json.dumps(event).encode()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "package",
        "X-GitHub-Delivery": str(uuid.uuid4()),
        "X-Hub-Signature-256": "sha256="
        + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
    }
    return ask(urllib.request.Request(f"{url}/webhooks/github", body, headers))


def first_job(url: str) -> str:
    """Ask for jobs until one is there; return its id."""
    job: str = asked(f"{url}/api/v1/jobs", lambda answer: answer["jobs"])["jobs"][0]["id"]
    return job


def finished(url: str, job: str) -> dict[str, Any]:
    """Ask for the job until it is done."""
    return asked(f"{url}/api/v1/jobs/{job}", lambda answer: answer["state"] == "done")


def asked(url: str, enough: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Ask the API until its answer is enough."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = ask(request)
        if enough(answer):
            return answer
        time.sleep(0.2)
    sys.exit(f"{url} did not answer as it should within a minute")


def ask(request: urllib.request.Request) -> dict[str, Any]:
    """Make a request; return its JSON."""
    with urllib.request.urlopen(request, timeout=10) as answer:
        result: dict[str, Any] = json.load(answer)
        return result


if __name__ == "__main__":
    main()
