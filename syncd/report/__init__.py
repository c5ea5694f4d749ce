"""Telling people and machines: notifications by Apprise, a dead man's switch, metrics.

A notification that cannot be delivered waits in the ledger; it never fails a job, nor delays one.
"""

from syncd.report.dead_mans_switch import ping
from syncd.report.delivery import Delivery
from syncd.report.metrics import Load, Metrics
from syncd.report.notifications import Notifier
from syncd.report.receivers import receivers_of
from syncd.report.registry_traffic import RegistryTraffic, configured_registries
from syncd.report.space_metrics import Usage

__all__ = [
    "Delivery",
    "Load",
    "Metrics",
    "Notifier",
    "RegistryTraffic",
    "Usage",
    "configured_registries",
    "ping",
    "receivers_of",
]
