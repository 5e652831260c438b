"""Microsoft 365 and outlook.com."""
