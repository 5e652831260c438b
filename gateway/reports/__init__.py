"""Reports of other mail systems about mail of ours: read with care, and never believed on their own."""

from gateway.reports.report import code_in, of_headers, read

__all__ = ["code_in", "of_headers", "read"]
