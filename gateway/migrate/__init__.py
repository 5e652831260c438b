"""The settings of other relays, read into settings of ours."""
