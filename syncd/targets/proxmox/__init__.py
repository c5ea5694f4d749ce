"""A Proxmox VE cluster as a target; this package is the only importer of proxmoxer.

`ProxmoxTarget` publishes templates into one storage of the cluster and creates containers from
them.  A template is present where the storage lists it with its full size, after the task that
wrote it has ended with OK.  `survey` tells what the cluster of this host offers, and
`setup_commands` how a token comes to the privileges that its duties need.
"""

from syncd.targets.proxmox.offers import Offer, Survey, on_a_node, survey
from syncd.targets.proxmox.privileges import (
    Duty,
    container_duties,
    replacement_duties,
    setup_commands,
    storage_duties,
)
from syncd.targets.proxmox.target import ProxmoxTarget

__all__ = [
    "Duty",
    "Offer",
    "ProxmoxTarget",
    "Survey",
    "container_duties",
    "on_a_node",
    "replacement_duties",
    "setup_commands",
    "storage_duties",
    "survey",
]
