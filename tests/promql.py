"""What an expression of Prometheus names, as far as tests have to know.

Source: https://prometheus.io/docs/prometheus/latest/querying/basics/
"""

from __future__ import annotations

import re

_WORDS = {
    *(
        "and",
        "or",
        "unless",
        "bool",
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
    ),
    *("offset", "inf", "nan"),
}
_STRING = r'"(?:[^"\\]|\\.)*"'
_SELECTED = re.compile(rf"([a-zA-Z_:][\w:]*)\s*\{{((?:{_STRING}|[^}}\"])*)\}}")
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SPAN = re.compile(r"\[[^\]]*\]")
_NAME = re.compile(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()")


def metrics(expression: str) -> set[str]:
    """Return the metrics that an expression names."""
    bare = _SPAN.sub("", _GROUPED.sub("", _SELECTED.sub(r"\1", expression)))
    return {name for name in _NAME.findall(bare) if name not in _WORDS}


def selected_labels(expression: str) -> dict[str, set[str]]:
    """Return by which labels an expression selects each metric."""
    found: dict[str, set[str]] = {}
    for name, selector in _SELECTED.findall(expression):
        labels = re.sub(_STRING, "", selector)
        found.setdefault(name, set()).update(re.findall(r"\w+(?=\s*[=!])", labels))
    return found


def grouped_labels(expression: str) -> set[str]:
    """Return the labels that an expression groups or matches by."""
    return {label for group in _GROUPED.findall(expression) for label in re.findall(r"\w+", group)}
