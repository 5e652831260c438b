"""The delivery loop: a worker for each backend, retries, bounces, and the housekeeping of the queue."""

from gateway.delivery.dispatcher import BackendStatus, Dispatcher

__all__ = ["BackendStatus", "Dispatcher"]
