"""Telling a person what needs somebody: by mail, by webhook or by a command, once for each event."""
