"""Why somebody was turned away, in plain words, and how to let him in: computed from the settings in force. No I/O."""

from gateway.remedies.case import Remedy
from gateway.remedies.table import REMEDIES, remedy

__all__ = ["REMEDIES", "Remedy", "remedy"]
