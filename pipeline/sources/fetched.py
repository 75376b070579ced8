"""What has come from Kaggle file by file: a ledger while it is under way, a record in the raw folder afterwards."""

import json
import shutil
import threading
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import UserError
from pipeline.files import DOWNLOAD_RECORD, write_json
from pipeline.sources.archive_guard import DamagedArchiveError, Guard, split_name
from pipeline.sources.archive_members import is_archive, opened, stem_of
from pipeline.sources.archives import unpack
from pipeline.sources.kaggle_api import Listed


@dataclass(frozen=True)
class Entry:
    """A listed file that is here.

    Attributes
    ----------
    listed : Listed
        As Kaggle listed it.
    files : dict
        Path below the raw folder, with /, to size in bytes: the file itself, or what was in it if it is an archive.
    folder : Path
        Where `files` lie now.
    """

    listed: Listed
    files: dict[str, int]
    folder: Path

    def is_now(self, file: Listed) -> bool:
        """Say whether it is this file in this version, with all its bytes."""
        return self.listed == file and all(_size(self.folder / path) == size for path, size in self.files.items())

    def values(self) -> dict[str, Any]:
        """Return what is written down of it."""
        return {"name": self.listed.name, "size": self.listed.size, "date": self.listed.date, "files": self.files}


class Ledger:
    """The files in the download area that are complete; one line for each, so that a kill loses none.

    Parameters
    ----------
    area : Path
        The download area; emptied if it is that of another source.
    address : str
        The source.
    """

    def __init__(self, area: Path, address: str) -> None:
        self.area, self._path, self._lock = area, area / "complete.jsonl", threading.Lock()
        self._entries: dict[str, Entry] = {}
        head = json.dumps({"source": address})
        lines = _lines(self._path)
        if lines[:1] != [head]:
            shutil.rmtree(area, ignore_errors=True)
            area.mkdir(parents=True)
            self._path.write_text(head + "\n", encoding="utf-8")
        for line in lines[1:]:
            values = _json(line)
            if isinstance(values, dict) and (entry := _entry(values, self.content(str(values.get("name"))))):
                self._entries[entry.listed.name] = entry

    def found(self, file: Listed) -> Entry | None:
        """Return the entry of a listed file if it is complete and of the present version."""
        entry = self._entries.get(file.name)
        return entry if entry and entry.is_now(file) else None

    def place(self, name: str) -> Path:
        """Return where a listed file comes to: a name of our own, with the suffix if it is an archive."""
        folder = self._folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / ("file" + name[len(stem_of(name)) :].lower())

    def content(self, name: str) -> Path:
        """Return the folder of what the raw folder gets of a listed file."""
        return self._folder(name) / "content"

    def forget(self, name: str) -> None:
        """Remove what is here of a listed file."""
        shutil.rmtree(self._folder(name), ignore_errors=True)

    def add(self, entry: Entry) -> Entry:
        """Write down that a file is complete."""
        with self._lock, self._path.open("a", encoding="utf-8") as handle:
            handle.write("\n" + json.dumps(entry.values()) + "\n")  # a line that a kill cut short ends here
            self._entries[entry.listed.name] = entry
        return entry

    def _folder(self, name: str) -> Path:
        return self.area / sha256(name.encode()).hexdigest()[:40]


def settle(ledger: Ledger, file: Listed, came: Path) -> Entry:
    """Put a file that came into its place, unpacked if it is an archive, and write that down.

    Kaggle sends a single large file as a zip with that one file; and what is listed as an archive is unpacked into a
    folder of its name, as Kaggle itself does with uploads. The archive is removed.

    Raises
    ------
    UserError
        As in `pipeline.sources.archives.unpack`; a damaged archive is removed, so that it is fetched anew.
    """
    content = ledger.content(file.name)
    shutil.rmtree(content, ignore_errors=True)
    try:
        if is_archive(file.name):
            unpack(came, content / stem_of(file.name), bar=False)
        else:
            (content / file.name).parent.mkdir(parents=True)
            _unwrapped(came, PurePosixPath(file.name).name).replace(content / file.name)
    except DamagedArchiveError as error:
        ledger.forget(file.name)
        raise UserError(f"{file.name}: {error}; it was removed, so run the stage again") from None
    for path in came.parent.iterdir():
        if path.is_file():
            path.unlink()
    files = {path.relative_to(content).as_posix(): path.stat().st_size for path in content.rglob("*") if path.is_file()}
    return ledger.add(Entry(file, files, content))


def read_record(raw: Path, address: str) -> dict[str, Entry]:
    """Return what a raw folder holds of a source, by listed name; what cannot be read or trusted is left out."""
    values = _json("\n".join(_lines(raw / DOWNLOAD_RECORD)))
    if not isinstance(values, dict) or values.get("source") != address or not isinstance(values.get("files"), list):
        return {}
    entries = [_entry(row, raw) for row in values["files"]]
    return {entry.listed.name: entry for entry in entries if entry}


def write_record(folder: Path, address: str, entries: list[Entry]) -> None:
    """Write into a raw folder what it holds of a source."""
    write_json(folder / DOWNLOAD_RECORD, {"source": address, "files": [entry.values() for entry in entries]})


def _unwrapped(came: Path, name: str) -> Path:
    """Return the file that came, or the one in the zip around it."""
    if not zipfile.is_zipfile(came):
        return came
    zipped = came.replace(came.with_name("wrapped.zip"))
    inside = came.with_name("wrapped")
    shutil.rmtree(inside, ignore_errors=True)
    try:
        with opened(zipped, Guard(zipped)) as members:
            names = [PurePosixPath(member.name).name for member in members if not member.folder]
    except UserError:  # some other kind of zip, such as a spreadsheet
        names = []
    if names != [name]:
        return zipped.replace(came)
    unpack(zipped, inside, bar=False)
    return next(path for path in inside.rglob("*") if path.is_file()).replace(came)


def _entry(values: Any, folder: Path) -> Entry | None:
    try:
        listed = Listed(str(values["name"]), int(values["size"]), str(values["date"]))
        files = {str(path): int(size) for path, size in values["files"].items()}
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
    # Somebody else may have written the raw folder, so no path is taken on trust.
    harmless = all("/".join(split_name(path)[0]) == path != "" for path in (*files, listed.name))
    return Entry(listed, files, folder) if harmless else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _size(path: Path) -> int:
    return path.lstat().st_size if path.is_file() and not path.is_symlink() else -1
