"""What may be unpacked: names that stay inside their folder on every system, and bounded numbers and sizes."""

import threading
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UserError

MAX_FILES = 500_000
"""Four times the largest data set (NIH ChestX-ray14: 112,120 images)."""

MAX_BYTES = 200 * 2**30
"""Four times the largest data set (NIH ChestX-ray14: 42 GB), and more than a mistaken archive should fill."""

MAX_RATIO = 200
"""Expansion above which an archive is a bomb. Images in an archive are compressed already (ratio 1), tables reach some
10; DEFLATE can reach 1032 (zlib Technical Details, "Maximum Compression Factor"), so 1000 would let it through."""

RATIO_FROM = 10 * 2**20
"""Bytes below which a high ratio (an empty table, a black picture) does no harm."""

# Microsoft, "Naming Files, Paths, and Namespaces": these open a device, whatever their suffix.
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"}
)


class DamagedArchiveError(UserError):
    """An archive that is cut short or corrupt: fetching it again may help."""


@dataclass
class Budget:
    """How much may still be unpacked, shared by archives that are unpacked together (in threads)."""

    max_files: int = MAX_FILES
    max_bytes: int = MAX_BYTES
    files: int = 0
    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def take(self, files: int, size: int) -> str:
        """Count entries of the file system and bytes; return what is exceeded, or nothing."""
        with self._lock:
            self.files += files
            self.bytes += size
            if self.files > self.max_files:
                return f"is one file or folder too many (at most {self.max_files:,} are unpacked)"
            if size < 0 or self.bytes > self.max_bytes:
                return f"takes the content beyond {self.max_bytes:,} bytes, the most that is unpacked"
        return ""


@dataclass
class Guard:
    """Counts what one archive announces, and refuses what must not be written.

    Attributes
    ----------
    archive : Path
        For the messages.
    budget : Budget
        Bounds, possibly shared with other archives.
    files, announced : int
        Files and bytes admitted so far.
    """

    archive: Path
    budget: Budget = field(default_factory=Budget)
    files: int = 0
    announced: int = 0
    _seen: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def refuse(self, name: str, reason: str) -> UserError:
        """Return the error that names the member; the caller raises it."""
        return UserError(f"{self.archive}: {name[:200]!a} {reason}; nothing was unpacked: use the original archive")

    def admit(self, name: str, size: int, packed: int | None, *, folder: bool) -> str:
        """Check one member; return its name as a clean relative POSIX path ("" for the archive's own root).

        Parameters
        ----------
        name : str
            As in the archive.
        size, packed : int
            Bytes, unpacked and packed, as announced; None where the member has no packed size of its own.
        folder : bool
            Whether it is a folder.
        """
        parts, reason = split_name(name)
        if reason:
            raise self.refuse(name, reason)
        if not parts and not folder:
            raise self.refuse(name, "is a file without a name")
        before = len(self._seen)
        for depth in range(1, len(parts) + 1):
            self._claim("/".join(parts[:depth]), folder=folder or depth < len(parts))
        self.files += not folder
        self.announced += size
        # Folders count too: they need entries of the file system as files do.
        if reason := self.budget.take(len(self._seen) - before, size):
            raise self.refuse(name, reason)
        if packed is not None and size > RATIO_FROM and size > MAX_RATIO * packed:
            raise self.refuse(name, f"would grow from {packed:,} to {size:,} bytes, as only a decompression bomb does")
        return "/".join(parts)

    def check_ratio(self, name: str, packed: int) -> None:
        """Refuse a sum of small members that together are a bomb."""
        if self.announced > max(RATIO_FROM, MAX_RATIO * packed):
            raise self.refuse(name, f"takes the content beyond {MAX_RATIO} times the archive's size")

    def _claim(self, name: str, *, folder: bool) -> None:
        key = folded(name)
        known = self._seen.get(key)
        if known is None:
            self._seen[key] = (name, folder)
        elif known[0] != name:
            raise self.refuse(name, f"differs from {known[0]!a} only by case, accents' encoding or dots at the end")
        elif known[1] != folder:
            raise self.refuse(name, "is both a file and a folder")
        elif not folder:
            raise self.refuse(name, "occurs twice")


_LONGEST, _DEEPEST = 1024, 64  # characters of a name and folders in it; real sets have some 150 and 5


def split_name(name: str) -> tuple[list[str], str]:
    r"""Return the parts of a relative POSIX path, and why it must not be written ("" if it may be).

    Refused: absolute names, `..` (also with dots or spaces behind, which Windows drops), backslash and colon (they
    separate on Windows, a colon also names an NTFS stream), control and other unprintable characters (they would end
    up in tables and on terminals; a NUL ends the name for the system), Windows' device names.
    """
    if name.startswith("/") or "\\" in name or ":" in name or not name.isprintable():
        return [], "is absolute or holds a backslash, a colon or a character that cannot be printed"
    if len(name) > _LONGEST or name.count("/") > _DEEPEST:  # each folder on the way is remembered
        return [], "is longer or deeper than any data set's"
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for part in parts:
        if not part.rstrip(". "):
            return [], "leads out of the folder"
        # A device name counts with anything after its first dot, and with spaces before that dot.
        if part.split(".")[0].rstrip().casefold() in _DEVICES:
            return [], "holds the name of a device on Windows"
    return parts, ""


def folded(name: str) -> str:
    """Return a key that is equal for names which are one file somewhere.

    macOS and Windows fold case, macOS also normalises, Windows drops dots and spaces at the end of a part.
    """
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return "/".join(part.rstrip(". ") for part in plain.split("/"))
