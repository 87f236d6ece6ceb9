"""Flow decoder: speech tokens to mel frames."""

from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.session import FlowSession

__all__ = ["FlowModel", "FlowSession"]
