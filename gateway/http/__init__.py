"""Seen from outside: health, metrics and the JSON API, on loopback and on the admin socket."""

from gateway.http.access import Access
from gateway.http.routes import build
from gateway.http.server import BindError, HttpServer
from gateway.http.service import Service

__all__ = ["Access", "BindError", "HttpServer", "Service", "build"]
