"""The delivery loop: a worker for each backend, retries, bounces, housekeeping."""

from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.returned import Comebacks
from gateway.delivery.standing import BackendStatus

__all__ = ["BackendStatus", "Comebacks", "Dispatcher"]
