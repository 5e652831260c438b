"""An upstream SMTP server."""
