"""What may be wrong with a set-up, looked for on demand: findings, each with what to do about it."""

from gateway.doctor.doctor import Busy, Doctor, UnderWay
from gateway.doctor.finding import AREAS, Finding, Level
from gateway.doctor.report import Report
from gateway.doctor.subject import Subject

__all__ = ["AREAS", "Busy", "Doctor", "Finding", "Level", "Report", "Subject", "UnderWay"]
