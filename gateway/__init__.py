"""gateway: a self-hosted SMTP relay that bridges to HTTP mail APIs."""

__version__ = "0.1.0"
