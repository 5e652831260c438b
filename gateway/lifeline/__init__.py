"""What became of a message, for people: made of what the spool keeps of it, the same for commands, API and pages."""

from gateway.lifeline.content import Content, content
from gateway.lifeline.entries import Entry, Life, life
from gateway.lifeline.words import answer, meaning, shown, shown_row

__all__ = [
    "Content",
    "Entry",
    "Life",
    "answer",
    "content",
    "life",
    "meaning",
    "shown",
    "shown_row",
]
