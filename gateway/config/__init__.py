"""Typed settings: loading, errors with file:line:column, and how they are shown.

Commands need little of this, so nothing that costs time is imported here: the rest stands in loading and show.
"""

from gateway.config.document import ConfigError

__all__ = ["ConfigError"]
