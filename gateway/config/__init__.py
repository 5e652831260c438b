"""Typed settings: loading, errors with file:line:column, and how they are shown.

Commands need little of this, so nothing that costs time is imported here: the rest stands in loading, loaded and show.
"""

from gateway.config.document import ConfigError
from gateway.config.locate import find_file

__all__ = ["ConfigError", "find_file"]
