"""Every sender but GitHub, whose deliveries have a module and a secret of their own."""

from __future__ import annotations

from syncd.events.distribution import DISTRIBUTION
from syncd.events.dockerhub import DOCKER_HUB
from syncd.events.generic import GENERIC
from syncd.events.gitea import GITEA
from syncd.events.harbor import HARBOR
from syncd.events.quay import QUAY

SENDERS = (DISTRIBUTION, HARBOR, QUAY, DOCKER_HUB, GITEA, GENERIC)
