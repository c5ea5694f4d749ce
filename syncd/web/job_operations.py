"""The operations of HTTP that are about jobs."""

from __future__ import annotations

from syncd.sync import JobDetailView, JobView
from syncd.web.answers import JobsAnswer
from syncd.web.operation import Answer, Operation, Parameter

_ID = Parameter("id", "path", "The job's id.", {"type": "string"})
_UNKNOWN = Answer("There is no such job.")

JOB_OPERATIONS = (
    Operation(
        "get",
        "/api/v1/jobs",
        "listJobs",
        "api",
        "List the newest jobs, newest first",
        parameters=(
            Parameter(
                "limit",
                "query",
                "How many.",
                {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
                required=False,
            ),
        ),
        answers={
            200: Answer("The jobs.", JobsAnswer),
            400: Answer("The limit is not a number from 1 to 1000."),
        },
    ),
    Operation(
        "get",
        "/api/v1/jobs/{id}",
        "getJob",
        "api",
        "Show one job, with its log",
        parameters=(
            _ID,
            Parameter(
                "wait",
                "query",
                "For how many seconds the answer waits for the job's end.",
                {"type": "integer", "minimum": 0, "maximum": 30, "default": 0},
                required=False,
            ),
        ),
        answers={
            200: Answer("The job.", JobDetailView),
            400: Answer("The wait is not a number of seconds from 0 to 30."),
            404: _UNKNOWN,
        },
    ),
    Operation(
        "post",
        "/api/v1/jobs/{id}/cancel",
        "cancelJob",
        "api",
        "End a job that waits or runs",
        description="A job of a repository takes the jobs that it made of tags with it. What was "
        "published until then stays, and the next sweep looks at what is watched again.",
        parameters=(_ID,),
        answers={
            200: Answer("The job has ended.", JobView),
            404: _UNKNOWN,
            409: Answer("The job has ended already, or belongs to another process."),
        },
    ),
    Operation(
        "post",
        "/api/v1/jobs/{id}/retry",
        "retryJob",
        "api",
        "Look again at what a job looked at",
        description="Answers at once, with a job that waits already or a new one.",
        parameters=(_ID,),
        answers={
            202: Answer("The job that looks at it.", JobView),
            404: _UNKNOWN,
            409: Answer("The job was one caller's, who has to ask for it again."),
        },
    ),
    Operation(
        "get",
        "/api/v1/events",
        "listen",
        "api",
        "Listen to jobs and their progress",
        description="Server-sent events. The first is snapshot, whose data is the newest jobs and "
        "those that run, as in listJobs; it may come again. Then come job, whose data is a job "
        "that changed, and progress, whose data has the progress of running jobs by their ids. "
        "A comment comes every 15 s where nothing else does. A listener that takes nothing for "
        "20 s is dropped, and each has to connect again after an hour.",
        answers={200: Answer("The events.", {"type": "string"}, "text/event-stream")},
    ),
)
