"""SMTP in. The only room with aiosmtpd."""

from gateway.smtp.limits import Shared
from gateway.smtp.listener import Listener
from gateway.smtp.site import Site

__all__ = ["Listener", "Shared", "Site"]
