"""The folder of a data set: its files, which of them is meant by a row, and which have no row."""

import filecmp
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.errors import UserError
from pipeline.files import DOWNLOAD_RECORD
from pipeline.quarantine import Reason, Refused

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})

_JUNK_NAMES = {".DS_Store", "Thumbs.db", "desktop.ini"}
_LINKED_AGAIN = "folder that a link leads to a second time"


def list_files(raw: Path, left_out: Counter[str]) -> list[PurePosixPath]:
    """List the files below `raw`, sorted, relative; operating systems' junk is counted in `left_out` instead.

    Links to folders are followed (image folders often lie on another disk), each folder once.

    Raises
    ------
    UserError
        For a name that no table can hold, a folder that cannot be read, a link to a folder that holds `raw`.
    """
    names = []
    for name in _walk(raw, left_out):
        if name == DOWNLOAD_RECORD:
            continue
        if not name.isprintable():  # no UTF-8 (a name in GBK), or control characters: no table can hold it
            raise UserError(f"{raw}: the name {name!a} is not printable UTF-8; rename that file")
        folder, _, base = name.rpartition("/")
        if base in _JUNK_NAMES or base.startswith("._") or "__MACOSX" in folder.split("/"):
            left_out["junk of the operating system"] += 1
        else:
            names.append(name)
    # Part by part, as paths sort: no name holds a character that comes before "\0", see above.
    return [PurePosixPath(name) for name in sorted(names, key=lambda name: name.replace("/", "\0"))]


def _walk(raw: Path, left_out: Counter[str]) -> Iterator[str]:
    """Yield the files below `raw` as POSIX paths relative to it."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): mend its permissions")

    seen: set[tuple[int, int]] = set()
    queue = deque([raw])
    while queue:  # links wait for the real folders, so that a path does not depend on the order of names
        top = queue.popleft()
        for place, folders, files in os.walk(top, onerror=refuse):
            folder = Path(place)
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                left_out[_LINKED_AGAIN] += 1
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            queue.extend(_followed(raw, folder / name) for name in sorted(folders) if (folder / name).is_symlink())
            prefix = "".join(f"{part}/" for part in folder.relative_to(raw).parts)
            yield from (prefix + name for name in files if (folder / name).is_file())


def _followed(raw: Path, link: Path) -> Path:
    if raw.resolve().is_relative_to(link.resolve()):
        raise UserError(f"{link} is a link to a folder that holds {raw} itself; remove the link")
    return link


def by_key(
    raw: Path,
    files: Sequence[PurePosixPath],
    key: Callable[[PurePosixPath], str],
    left_out: Counter[str],
    refused: list[Refused],
) -> dict[str, PurePosixPath]:
    """Return the file of each key.

    Equal files under one key are counted in `left_out` after the first; of different ones all are refused, because
    nobody can say which of them a row means.
    """
    images: dict[str, PurePosixPath] = {}
    odd: set[str] = set()
    for file in files:
        name = key(file)
        first = images.setdefault(name, file)
        if first is file:
            continue
        if filecmp.cmp(raw / first, raw / file, shallow=False):
            left_out["second copy of an image under the same name"] += 1
        else:
            odd.add(name)
            refused.append(Refused(str(file), Reason.CONFLICTING_NAME, "another picture under the same name"))
    refused += [
        Refused(str(images.pop(name)), Reason.CONFLICTING_NAME, "other pictures have the same name")
        for name in sorted(odd)
    ]
    return images


def attach(rows: pd.DataFrame, images: dict[str, PurePosixPath], refused: list[Refused]) -> pd.DataFrame:
    """Add the column `path`; rows without a file and files without a row are refused.

    Parameters
    ----------
    rows : DataFrame
        With `image_id`.
    images : dict
        File of each `image_id` (see `by_key`).
    """
    # A Series of str: map() makes floats where a dictionary has none of the names.
    paths = pd.Series(
        [str(images[name]) if name in images else None for name in rows["image_id"].tolist()],
        index=rows.index,
        dtype="str",
    )
    named = set(rows["image_id"].tolist())  # a tenth of the time of going through the column itself
    refused += [
        Refused(shown(name), Reason.LABEL_WITHOUT_IMAGE, "named in the label table, but there is no such file")
        for name in rows.loc[paths.isna(), "image_id"]
    ]
    refused += [
        Refused(str(path), Reason.IMAGE_WITHOUT_LABEL, "not named in the label table")
        for name, path in images.items()
        if name not in named
    ]
    return rows.assign(path=paths)[paths.notna()].reset_index(drop=True)


def safe_path(text: str, origin: str) -> PurePosixPath:
    r"""Return a path that a table or a parameter names, relative to the raw folder.

    Raises
    ------
    UserError
        For an absolute path, `..`, a backslash, a drive letter, control characters, or nothing.
    """
    path = PurePosixPath(text)
    fine = text.isprintable() and "\\" not in text and not path.is_absolute() and path.parts
    if not fine or ".." in path.parts or text[1:2] == ":":
        raise UserError(
            f"{origin}: {shown(text)!r} is no path below the raw folder; write it relative, with /, without .. or \\"
        )
    return path


def shown(text: str) -> str:
    """Return a table's text so that a line can hold it: printable, at most 120 characters."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in text[:121])
    return clean if len(clean) <= 120 else clean[:119] + "…"
