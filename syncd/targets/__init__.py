"""Targets, where templates are published: their protocol, a plain folder, and templates' names.

A target publishes a finished file under a name that carries the file's digest, never over another
file, and lists the templates that it has.  The package `proxmox` has the target for a Proxmox VE
cluster; it is imported only where a cluster is configured.
"""

from syncd.targets.beside import ReadableTarget
from syncd.targets.container import (
    Container,
    ContainerRequest,
    FoundContainer,
    Startup,
    public_keys,
)
from syncd.targets.credentials import Credentials
from syncd.targets.directory import DirectoryTarget
from syncd.targets.naming import DEFAULT_NAME, architecture_of, check_pattern, file_name
from syncd.targets.options import ContainerOptions
from syncd.targets.origin import Origin
from syncd.targets.record import RecordingTarget, TemplateRecord
from syncd.targets.request import REFERENCE_SCHEMA, ReferenceText, RequestModel
from syncd.targets.root_swap import Guest, RootHost, RootSwap, RootSwaps, SwapOrder, SwapStep, Twin
from syncd.targets.target import (
    CheckResult,
    ContainerHost,
    MeasuredTarget,
    PublishedImage,
    RoomyTarget,
    Space,
    Target,
    Volume,
)

__all__ = [
    "DEFAULT_NAME",
    "REFERENCE_SCHEMA",
    "CheckResult",
    "Container",
    "ContainerHost",
    "ContainerOptions",
    "ContainerRequest",
    "Credentials",
    "DirectoryTarget",
    "FoundContainer",
    "Guest",
    "MeasuredTarget",
    "Origin",
    "PublishedImage",
    "ReadableTarget",
    "RecordingTarget",
    "ReferenceText",
    "RequestModel",
    "RoomyTarget",
    "RootHost",
    "RootSwap",
    "RootSwaps",
    "Space",
    "Startup",
    "SwapOrder",
    "SwapStep",
    "Target",
    "TemplateRecord",
    "Twin",
    "Volume",
    "architecture_of",
    "check_pattern",
    "file_name",
    "public_keys",
]
