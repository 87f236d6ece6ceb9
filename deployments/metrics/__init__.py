"""What the stages count, for Ray's Prometheus endpoint of each node. Names there begin with `ray_`.

A file for each stage; Ray adds application, deployment and replica as tags.
"""

from deployments.metrics.flow import FlowMetrics
from deployments.metrics.language_model import LanguageModelMetrics, RequestMetrics
from deployments.metrics.listeners import Delivery, ListenerMetrics, ListenerStream
from deployments.metrics.steps import StepMetrics, WorkMetrics

__all__ = [
    "Delivery",
    "FlowMetrics",
    "LanguageModelMetrics",
    "ListenerMetrics",
    "ListenerStream",
    "RequestMetrics",
    "StepMetrics",
    "WorkMetrics",
]
