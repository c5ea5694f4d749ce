"""What the daemon promises of its memory: documents of images take little of it, however many."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

from tests.archives import file
from tests.daemons import PATIENCE, running
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, configure
from tests.images import Content, described, image, layer
from tests.memory import peak

MIB = 1 << 20
IMAGES = 8  # of each registry
HISTORY = [{"comment": os.urandom(500).hex()} for _ in range(3800)]


def large(name: str) -> Content:
    """Return an image with a config of almost 4 MiB."""
    whole = image(layer(file(name)))
    config = json.loads(whole.blobs[whole.document["config"]["digest"]]) | {"history": HISTORY}
    content = described(config, whole.document["layers"])
    assert 3 * MIB < content.document["config"]["size"] < 4 * MIB
    return Content(content.descriptor, whole.blobs | content.blobs)


def test_large_documents(tmp_path: Path) -> None:
    """Configs of almost 4 MiB, of many images in several registries, are never held all at once."""
    with ExitStack() as stack:
        registries = [stack.enter_context(Registry()) for _ in range(3)]
        config = configure(tmp_path, registries[0], image='tags = ["re:.*"]')
        more = [
            f'[[registry]]\nhost = "{one.address}"\nplain_http = true\n'
            f'[[image]]\nrepository = "{one.address}/{REPOSITORY}"\ntags = ["re:.*"]\n'
            for one in registries[1:]
        ]
        config.write_text(config.read_text() + "".join(more))
        daemon = stack.enter_context(running(tmp_path, config))
        time.sleep(1)
        before = peak(daemon.process.pid)
        for registry in registries:
            for nth in range(IMAGES):
                registry.push(REPOSITORY, f"v{nth}", large(f"{registry.address}-{nth}"))
        daemon.process.send_signal(signal.SIGUSR1)
        until = time.monotonic() + PATIENCE
        storage = tmp_path / "storage" / "template" / "cache"
        while len(list(storage.glob("*.zst"))) < len(registries) * IMAGES:
            assert time.monotonic() < until, daemon.log.read_text()[-4000:]
            time.sleep(0.1)
        grown = peak(daemon.process.pid) - before
        assert grown < 128 * MIB, f"{grown / MIB:.0f} MiB"
