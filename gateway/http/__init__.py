"""Seen from outside: health, metrics and the JSON API, on loopback and on the admin socket.

The commands' client lives here too and must load quickly, so this hands nothing on.
"""
