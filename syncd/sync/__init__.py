"""The way of one job, from what a tag means now to a published template; and what is kept of it.

Jobs run one at a time for each reference, and are in the ledger before anybody is told of them.
Every step may be repeated after a crash at any instruction: what is done is found done.
"""

from syncd.sync.activity import Activity, JobProgress
from syncd.sync.backup import back_up, restore
from syncd.sync.conditions import Condition, Lack, Place, Status
from syncd.sync.container_list import ListedContainer
from syncd.sync.containers import ContainerCreator
from syncd.sync.context import OpenRepository, Running
from syncd.sync.engine import SyncEngine
from syncd.sync.examination import verify_all
from syncd.sync.executors import LOOKS_PER_HOST, BoundedExecutor, Executors, soon
from syncd.sync.figure_rows import StorageFigures, TemplateFigures
from syncd.sync.job import Cause, JobRecord, Outcome, Result, State, SyncJob
from syncd.sync.job_log import JobLogs, LogLine, log_of, told
from syncd.sync.job_views import (
    JobDetailView,
    JobView,
    LogLineView,
    ProgressView,
    job_detail_json,
    job_json,
    line_json,
    progress_json,
)
from syncd.sync.ledger import Ledger
from syncd.sync.notification import Notification, Severity, Told, Undelivered
from syncd.sync.platform_choice import Use
from syncd.sync.presence import Presence
from syncd.sync.proof import ProofState
from syncd.sync.provenance import attestations_of_volume, json_lines
from syncd.sync.reaper import Reaper
from syncd.sync.recorder import ConditionRecorder, conditions_now
from syncd.sync.replacement import (
    BehindOptions,
    Replaced,
    ReplacedBehind,
    Replacement,
    ReplacementState,
    ReplaceOptions,
)
from syncd.sync.replacer import RootReplacer
from syncd.sync.retention import Retained
from syncd.sync.selection import Ended, Named, foreseen, named
from syncd.sync.sweep import Sweep
from syncd.sync.tag_list import by_number
from syncd.sync.tally import (
    BOUNDS,
    SUM,
    Counted,
    Ending,
    Handing,
    Instead,
    Reception,
    Redelivery,
    Reload,
    Step,
    Tally,
)
from syncd.sync.template import Template
from syncd.sync.template_views import (
    ExaminedView,
    TemplateView,
    VoucherView,
    examined_json,
    templates_json,
)
from syncd.sync.total_rows import IMAGE, REPOSITORY
from syncd.sync.upkeep_views import (
    EndView,
    PrunedView,
    VerifiedView,
    end_json,
    pruned_json,
    verified_json,
)
from syncd.sync.verification import Verified, Verifier
from syncd.sync.view_types import VolumeId
from syncd.sync.views import (
    ConditionView,
    ContainerView,
    ListedContainerView,
    ReplacedBehindView,
    ReplacedView,
    condition_json,
    container_json,
    listed_json,
    replaced_behind_json,
    replaced_json,
    replacement_json,
)
from syncd.sync.watched import Watched
from syncd.sync.worker import Worker

__all__ = [
    "BOUNDS",
    "IMAGE",
    "LOOKS_PER_HOST",
    "REPOSITORY",
    "SUM",
    "Activity",
    "BehindOptions",
    "BoundedExecutor",
    "Cause",
    "Condition",
    "ConditionRecorder",
    "ConditionView",
    "ContainerCreator",
    "ContainerView",
    "Counted",
    "EndView",
    "Ended",
    "Ending",
    "ExaminedView",
    "Executors",
    "Handing",
    "Instead",
    "JobDetailView",
    "JobLogs",
    "JobProgress",
    "JobRecord",
    "JobView",
    "Lack",
    "Ledger",
    "ListedContainer",
    "ListedContainerView",
    "LogLine",
    "LogLineView",
    "Named",
    "Notification",
    "OpenRepository",
    "Outcome",
    "Place",
    "Presence",
    "ProgressView",
    "ProofState",
    "PrunedView",
    "Reaper",
    "Reception",
    "Redelivery",
    "Reload",
    "ReplaceOptions",
    "Replaced",
    "ReplacedBehind",
    "ReplacedBehindView",
    "ReplacedView",
    "Replacement",
    "ReplacementState",
    "Result",
    "Retained",
    "RootReplacer",
    "Running",
    "Severity",
    "State",
    "Status",
    "Step",
    "StorageFigures",
    "Sweep",
    "SyncEngine",
    "SyncJob",
    "Tally",
    "Template",
    "TemplateFigures",
    "TemplateView",
    "Told",
    "Undelivered",
    "Use",
    "Verified",
    "VerifiedView",
    "Verifier",
    "VolumeId",
    "VoucherView",
    "Watched",
    "Worker",
    "attestations_of_volume",
    "back_up",
    "by_number",
    "condition_json",
    "conditions_now",
    "container_json",
    "end_json",
    "examined_json",
    "foreseen",
    "job_detail_json",
    "job_json",
    "json_lines",
    "line_json",
    "listed_json",
    "log_of",
    "named",
    "progress_json",
    "pruned_json",
    "replaced_behind_json",
    "replaced_json",
    "replacement_json",
    "restore",
    "soon",
    "templates_json",
    "told",
    "verified_json",
    "verify_all",
]
