"""Typed settings: loading, errors with file:line:column, and how they are shown."""

from gateway.config.document import ConfigError
from gateway.config.loaded import Loaded
from gateway.config.loading import find_file, load
from gateway.config.show import RESTART_KEYS, diff, restart_keys, schema, show

__all__ = ["RESTART_KEYS", "ConfigError", "Loaded", "diff", "find_file", "load", "restart_keys", "schema", "show"]
