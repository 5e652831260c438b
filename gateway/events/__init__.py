"""Every mail event once: its log line and its metrics together. The only room with structlog and prometheus_client.

Nothing here is ever given a body, a subject, a password or a token.
"""

from gateway.events.events import REASONS, Events
from gateway.events.log import masked

__all__ = ["REASONS", "Events", "masked"]
