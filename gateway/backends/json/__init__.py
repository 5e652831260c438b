"""APIs that take fields instead of MIME."""
