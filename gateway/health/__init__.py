"""What needs somebody, in the operator's words: the same for the status command, the API, the pages and the alerts."""
