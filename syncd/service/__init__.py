"""The process: its services put together, its signals and clock, and what systemd is told.

`run` is the daemon; `assemble` gives the same services to a command that listens to nobody.
"""

from syncd.service.checks import check_results
from syncd.service.daemon_lock import lock_holder
from syncd.service.live_config import LiveConfig, targets_of
from syncd.service.services import Services, assemble

__all__ = [
    "LiveConfig",
    "Services",
    "assemble",
    "check_results",
    "lock_holder",
    "targets_of",
]
