"""Why somebody was turned away, in plain words, and how to let him in: computed from the settings in force. No I/O."""

from gateway.remedies.table import Remedy, remedy

__all__ = ["Remedy", "remedy"]
