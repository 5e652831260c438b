"""The delivery loop: a worker for each backend, retries, bounces, and the housekeeping of the queue."""

from gateway.delivery.dispatcher import Delivery, LaneStatus

__all__ = ["Delivery", "LaneStatus"]
