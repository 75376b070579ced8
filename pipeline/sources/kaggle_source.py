"""A data set or competition from Kaggle: the archive of all, or the files that match patterns."""

import json
import zipfile
from pathlib import Path

from pipeline.errors import UserError
from pipeline.progress import note
from pipeline.sources.byte_progress import ByteProgress
from pipeline.sources.kaggle_api import Kaggle, parse_source
from pipeline.sources.kaggle_credentials import needed_credentials
from pipeline.sources.kaggle_errors import explained
from pipeline.sources.retries import Patience, Retry
from pipeline.sources.transfer import Transfer


def fetch_dataset(address: str, folder: Path, patience: Patience | None = None) -> Path:
    """Download the archive of all files; continue one that was cut short, and keep one that is complete.

    Parameters
    ----------
    address : str
        `owner/data-set` or `competitions/NAME`, as in the page's address.
    folder : Path
        Where the archive goes. Part of a file stays there, with the server's mark of its version, if the
        connection breaks.
    patience : Patience, optional
        Time limits, tries and waits.

    Returns
    -------
    Path
        The zip file in `folder`.

    Raises
    ------
    UserError
        Without credentials, if they are refused, if the source is unknown or its terms are not accepted, if
        Kaggle or the network fails, if there is no room, or if what came is no zip file.
    """
    source, credentials = parse_source(address), needed_credentials()
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{source.name}.zip"
    with (
        explained(source, credentials.origin),
        Kaggle(source, credentials, patience or Patience()) as kaggle,
        ByteProgress(f"downloading {source.name}") as progress,
    ):
        transfer = Transfer(archive.name, lambda headers: kaggle.open("", headers), archive, progress, whole=2)
        received = transfer.fetch(Retry(kaggle.patience, lambda: kaggle.reached))
    if not zipfile.is_zipfile(archive):
        archive.unlink()
        raise UserError(f"what Kaggle sent for {source.address} is no complete zip file: run the stage again")
    sums = " and ".join(received.verified) or "no checksum, since Kaggle gave none"
    note(f"{archive.name}: {received.size / 1e6:,.1f} MB; verified: size, {sums}")
    return archive


def announced_size(address: str, folder: Path) -> int | None:
    """Return the bytes that Kaggle announced for an archive when its download began, or None; asks nobody."""
    try:
        mark = folder / f"{parse_source(address).name}.zip.mark"
        size = json.loads(mark.read_text(encoding="utf-8"))["total"]
    except (UserError, OSError, ValueError, TypeError, KeyError):
        return None
    return size if isinstance(size, int) and size > 0 else None
