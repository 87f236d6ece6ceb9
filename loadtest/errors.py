"""What can be wrong with a load test itself, as opposed to the service it measures."""

from __future__ import annotations


class ScenarioError(ValueError):
    """A scenario, a text file, a trace or a report cannot be used; says where and what is allowed."""


class UnreachableError(RuntimeError):
    """The service did not answer at all, so there is nothing to measure."""
