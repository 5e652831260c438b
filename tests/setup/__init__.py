"""gateway setup: answers become settings that work."""
