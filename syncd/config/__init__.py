"""The configuration file: its model, its example, how it is found and read, secrets, cron lines.

A file is checked whole before anything uses it.  Secrets are named by file, read when they are
needed, and part of no value that could be printed.
"""

from syncd.config.cron import cron_trigger, next_time
from syncd.config.example import Value, configuration_text, example_text
from syncd.config.faults import check_value
from syncd.config.fields import GITHUBS_NETWORKS, parse_span
from syncd.config.github_settings import GitHubSettings
from syncd.config.load import DEFAULT_PATH, likely_socket, load_config, locate, parse_config
from syncd.config.notify_settings import NotifySettings
from syncd.config.paths import StatePaths
from syncd.config.secret import check as check_secret
from syncd.config.sender_settings import SenderSettings
from syncd.config.server_settings import ServerSettings
from syncd.config.settings import (
    Config,
    ImageSettings,
    RegistrySettings,
    ScheduleSettings,
    StateSettings,
)
from syncd.config.tag_rules import newest_versions
from syncd.config.target_settings import DirectoryTargetSettings, ProxmoxTargetSettings

__all__ = [
    "DEFAULT_PATH",
    "GITHUBS_NETWORKS",
    "Config",
    "DirectoryTargetSettings",
    "GitHubSettings",
    "ImageSettings",
    "NotifySettings",
    "ProxmoxTargetSettings",
    "RegistrySettings",
    "ScheduleSettings",
    "SenderSettings",
    "ServerSettings",
    "StatePaths",
    "StateSettings",
    "Value",
    "check_secret",
    "check_value",
    "configuration_text",
    "cron_trigger",
    "example_text",
    "likely_socket",
    "load_config",
    "locate",
    "newest_versions",
    "next_time",
    "parse_config",
    "parse_span",
]
