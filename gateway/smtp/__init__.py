"""SMTP in. The only room with aiosmtpd."""

from gateway.intake import Rules
from gateway.smtp.door import Door
from gateway.smtp.limits import Shared

__all__ = ["Door", "Rules", "Shared"]
