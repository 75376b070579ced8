"""Room on the disk: looked at before, and explained when it runs out on the way."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError


def check_room(folder: Path, needed: int, what: str) -> None:
    """Refuse what needs more bytes than the folder's disk has free.

    Parameters
    ----------
    folder : Path
        An existing folder on that disk.
    needed : int
        Bytes.
    what : str
        The beginning of the message: what needs them.

    Raises
    ------
    UserError
        With both figures.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{what} needs {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free: make room there, then run "
            "the stage again"
        )


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Say in one line that the disk of `folder` is full, or its owner's share of it, when writing fails for that."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(
            f"{folder} is full ({error.strerror}): make room there, then run the stage again; it goes on where it "
            "stopped"
        ) from None
