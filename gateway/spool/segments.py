"""Large bodies in files of their own, which are written once: SQLite writes each page twice, to its log and its file.

``bodies/`` beside the spool's file holds segments, named by number, of at most ``SEGMENT`` octets and one body more.
The writer alone appends; a row of table ``body`` says which segment, where in it and how long, and the checksum of the
message covers the bytes there as in the row (seal). Whatever is not whole there is that message's damage alone.

Before each COMMIT what was appended is synced, and the folder if a segment is new: no row leads to what is not on disk.
What an undone transaction appended is written over. No other place is ever used twice: a deleted body becomes a hole
(fallocate), so that the disk has its room and nobody its bytes, and a segment without bodies is removed. A file system
that knows no holes gets no segments: there all bodies stand in the spool's file, as those of older versions do.

After a kill, ``tidy`` makes holes of all that no row leads to. After any other end nothing is left over but where
another spool's file was put in place: that is renamed to ``.left``, and back when a row leads there again.
A copy of the spool (``SQLite.copy``) has all bodies within.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.files import sync_folder
from gateway.spool.disk import check_access
from gateway.spool.records import SpoolError
from gateway.spool.segment import Extent, Segment, make_folder, up

FOLDER = "bodies"
LARGE = 32 * 1024  # octets: from here on it is quicker
SEGMENT = 256_000_000  # octets
LEFT = ".left"
Used = Callable[[int, int, int], bool]  # whether rows lead into this segment, between these octets
_ALL = 2**62


class Segments:
    """Of one thread, but for ``read``, ``used``, ``astray`` and ``kept``. All of it blocks."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / FOLDER
        self.room = 0  # octets that may still be appended
        self._files: dict[int, Segment] = {}
        self._bodies: Counter[int] = Counter()  # by segment, as committed
        self._current = self._last = 0
        self._end = self._tail = 0  # of the current one: as committed, and with what is not
        self._added = 0  # not yet committed, as is what follows
        self._loose = False  # something was written behind the end
        self._dropped: list[Extent] = []
        self._free: list[Extent] = []  # deleted, and not yet given back
        self._fresh = False  # the folder may not have the name of the current one on disk
        self._able = True
        self._keepers = 0
        self._one = threading.Lock()

    # -- start and end -------------------------------------------------------------------------------------------------

    def open(self, bodies: Mapping[int, int], end: int) -> list[int]:
        """``bodies``: how many lie in each segment, by the rows; in the last one up to ``end``. Returns which segments
        are not there.

        Raises SpoolError, OSError.
        """
        known = dict(self._files)  # also those whose names are gone
        self.close()
        if bodies.keys() - known.keys() and not self.folder.is_dir():
            text = f"{self.folder} is missing, and {sum(bodies.values())} large messages lie there: put it back"
            raise SpoolError(f"{text}; or, to accept their loss, make an empty folder of that name and start again")
        for path in (self.folder, *map(self._path, bodies)):
            check_access(path, self.folder)
        for number in bodies:
            path, aside = self._path(number), self._path(number, LEFT)
            if aside.exists() and not path.exists():
                aside.rename(path)
            if number in known:
                self._files[number] = known[number]
            elif path.exists():
                self._files[number] = Segment(path)
        self._files |= {number: file for number, file in known.items() if number not in bodies}  # to be removed
        self._bodies.update(bodies)
        self._last = max(self._last, *bodies, *self._numbers(), *self._numbers(LEFT), 0)
        if self._last in self._files and self._files[self._last].size >= end:  # else its places are not free
            self._current = self._last
            self._end = self._tail = up(self._files[self._current].size)
        return [number for number in bodies if number not in self._files]

    def tidy(self, extents: Callable[[], Iterable[Extent]] | None) -> list[Path]:
        """At a start: what no row leads to goes. ``extents`` are what rows lead to; None where this need not be the
        spool's file that was in use last, and what it does not know may be another's. Returns what was left for that.

        Raises OSError.
        """
        for part in self.folder.glob("*.part"):
            part.unlink()
        unknown = [self._path(number) for number in self._numbers() if number not in self._bodies]
        for path in unknown:
            if extents is None:
                path.rename(f"{path}{LEFT}")
            else:
                path.unlink()
        if extents is not None:
            self._empty_between(sorted(extents()))
        return [self._path(number, LEFT) for number in self._numbers(LEFT)]

    def _empty_between(self, extents: list[Extent]) -> None:
        """In each segment, all around the bodies; nothing stays behind the last."""
        ends = dict.fromkeys(self._files, 0)
        for each in extents:
            if (file := self._files.get(each.segment)) is not None:
                if each.start > ends[each.segment]:
                    file.empty(ends[each.segment], each.start)
                ends[each.segment] = max(ends[each.segment], each.end)
        for number, end in ends.items():
            self._files[number].cut(end)
        if self._current:
            self._end = self._tail = ends[self._current]

    def finish(self, used: Used) -> bool:
        """At a stop: whether nothing is left that no row leads to."""
        if self._added:  # nobody knows whether that is committed
            return False
        try:
            self.begin()
            self._roll()
            self._give_back(used)
        except OSError:
            return False
        return not self._free

    def close(self) -> None:
        """What is still to be given back stays known."""
        self._undo()
        self._files.clear()
        self._bodies.clear()
        self._current = self._end = self._tail = 0
        self._fresh = False

    # -- within a transaction ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """What was not committed is undone, and takes no room of a disk that may have none left."""
        if self._loose and self._current:
            with suppress(OSError):
                self._files[self._current].cut(self._end)
        self._undo()

    def _undo(self) -> None:
        self._tail, self._added, self._loose = self._end, 0, False
        if self._dropped:
            self._dropped.clear()

    def append(self, raw: bytes) -> Extent | None:
        """On disk with ``sync``. None where it is to stand in the row: it is small, or there is no room here.

        Raises OSError.
        """
        size = len(raw)
        if size < LARGE or size > self.room or not self._able:
            return None
        if self._tail >= SEGMENT:
            if self._added:
                return None  # the next transaction begins another: in this one that would be two syncs
            self._roll()
        if not self._current and not self._begin_one():
            return None
        extent, file = Extent(self._current, self._tail, size), self._files[self._current]
        self._loose = True
        try:
            file.write(raw, extent.start)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(file.path)) from error
        self._tail, self._added = extent.end, self._added + 1
        self.room -= size
        return extent

    def _roll(self) -> None:
        """The current one takes no more. Raises OSError."""
        current, end = self._current, self._end
        self._current = self._end = self._tail = 0
        if current:
            self._files[current].cut(end)

    def _begin_one(self) -> bool:
        """False where that cannot be: no inode is left, or there is no such thing as a hole."""
        number = self._last = self._last + 1
        try:
            if not self.folder.exists():
                if self._files:  # it was taken away, and is to come back
                    return False
                make_folder(self.folder)
            file = Segment(self._path(number), new=True)
        except OSError:
            return False
        able = False
        with suppress(OSError):
            able = self._able = file.knows_holes()
        if not able:
            with suppress(OSError):
                file.path.unlink()
            return False
        self._files[number], self._current, self._fresh = file, number, True
        self._end = self._tail = 0
        return True

    def drop(self, extents: Iterable[Extent]) -> None:
        """Their rows are deleted: what they led to is given back after the commit."""
        self._dropped += extents

    def sync(self) -> None:
        """Right before the commit. Raises OSError; then nothing that was appended is to be trusted."""
        if not self._added:
            return
        file = self._files[self._current]
        try:
            file.sync()
            if self._fresh:
                sync_folder(self.folder)
                self._fresh = False
        except OSError as error:
            # The kernel may have dropped pages of it, and says so only once: nothing is added to it any more.
            number, end, self._current = self._current, self._end, 0
            self._end = self._tail = 0
            with suppress(OSError):
                if self._bodies[number]:
                    file.cut(end)
                else:
                    self._files.pop(number)
                    file.path.unlink()
            raise OSError(error.errno, error.strerror, str(file.path)) from error

    def committed(self, used: Used) -> str:
        """Give back what was deleted. Returns what is wrong with the place of what was appended."""
        astray = ""
        if self._added:
            self._bodies[self._current] += self._added
            self._end, self._added, self._loose = self._tail, 0, False
            astray = self._files[self._current].place()
        if self._dropped or self._free:
            self._bodies.subtract(each.segment for each in self._dropped)
            self._free += self._dropped
            self._dropped.clear()
            if not self._keepers:
                with suppress(OSError):  # again after the next commit
                    self._give_back(used)
        return astray

    def _give_back(self, used: Used) -> None:
        """Raises OSError."""
        stays: OSError | None = None
        for number in [one for one in self._files if self._bodies[one] <= 0 and one != self._current]:
            if not used(number, 0, _ALL):
                try:
                    if not self._files[number].place():
                        self._path(number).unlink()
                    self._files.pop(number)
                except OSError as error:  # the name stays, and nothing else
                    stays = error
        self._free.sort(reverse=True)
        while self._free:
            first, done = self._free[-1], 1
            end = first.end
            while done < len(self._free) and (after := self._free[-done - 1]).start == end:  # neighbours in one go
                if after.segment != first.segment:
                    break
                end, done = after.end, done + 1
            file = self._files.get(first.segment)
            if file is not None and not used(first.segment, first.start, end):  # rows may be damaged, too
                file.empty(first.start, end)
            del self._free[-done:]
        if stays is not None:
            raise stays

    # -- of any thread -------------------------------------------------------------------------------------------------

    def read(self, extent: Extent) -> bytes:
        """What is there. It may be less: that is not an error here, but damage of this message."""
        try:
            file = self._files.get(extent.segment) or Segment(self._path(extent.segment))
            return file.read(extent.start, extent.length)
        except (OSError, OverflowError, TypeError, ValueError):
            return b""

    def used(self) -> int:
        """Octets of the disk. Raises OSError."""
        return sum(file.used for file in list(self._files.values()))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Meanwhile nothing is given back: for who copies what the rows of one moment lead to."""
        with self._one:
            self._keepers += 1
        try:
            yield
        finally:
            with self._one:
                self._keepers -= 1

    # -- their place ---------------------------------------------------------------------------------------------------

    def astray(self) -> str:
        """What is wrong with the place of any of them."""
        return next(filter(None, (file.place() for file in list(self._files.values()))), "")

    def write_back(self) -> None:
        """Those that were removed. Raises SpoolError, OSError."""
        lost = {number: file for number, file in self._files.items() if file.place() == "missing"}
        found, needed = os.statvfs(self.folder.parent), sum(file.used for file in lost.values())
        if (free := found.f_bavail * found.f_frsize) < needed:
            raise SpoolError(f"no room to write {self.folder} back: {needed} bytes are needed, {free} are free")
        if not self.folder.exists():
            make_folder(self.folder)
        for number, file in lost.items():
            self._files[number] = file.write_back()
        sync_folder(self.folder)

    def _path(self, number: int, ending: str = "") -> Path:
        return self.folder / f"{number:08d}{ending}"

    def _numbers(self, ending: str = "") -> list[int]:
        """Those that are there; whatever else is, is not ours."""
        if not self.folder.is_dir():
            return []
        names = (file.name.removesuffix(ending) for file in self.folder.iterdir() if file.name.endswith(ending))
        return sorted(int(name) for name in names if len(name) >= 8 and name.isascii() and name.isdigit())
