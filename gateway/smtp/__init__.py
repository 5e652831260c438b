"""SMTP in. The only room with aiosmtpd."""

from gateway.intake import Rules
from gateway.smtp.limits import Shared
from gateway.smtp.listener import Listener

__all__ = ["Listener", "Rules", "Shared"]
