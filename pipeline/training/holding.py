"""Where the training images lie while they are needed: in memory, or on disk."""

from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import psutil
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.shards import INDEX, Processed
from pipeline.training.sampling import Portion, portion_of

_SHARE = 0.25  # of the available memory, for train.hold auto
_MB = 1e6
_CGROUPS = Path("/sys/fs/cgroup")
# Both trainings of a run, the head's and the network's, share one copy.
_HELD: WeakValueDictionary[tuple[str, ...], NDArray[np.uint8]] = WeakValueDictionary()


def hold(data: Processed, params: Params, portion: Portion) -> NDArray[np.uint8] | None:
    """Read a worker's training images into memory if they are to lie there.

    Returns
    -------
    ndarray of shape (n_images, size, size, 1), dtype=uint8, or None
        In the order of `portion.rows`; None if they stay on disk.

    Raises
    ------
    UserError
        If `train.hold` is memory and there is not enough of it, or a file does not hold what the index says.
    """
    key = _key(data, portion)
    if params.train.hold == "disk" or (params.train.hold == "auto" and not _fits(data, portion)):
        return None
    if (held := _HELD.get(key)) is not None:
        return held
    need, available = _bytes(data, portion), available_memory()
    if need > available:
        raise UserError(
            f"train.hold is memory: the training images need {need / _MB:,.0f} MB and {available / _MB:,.0f} MB are "
            "available; set it to disk or auto"
        )
    images = np.empty((len(portion.rows), data.size, data.size, 1), np.uint8)
    for path, start, end in zip(portion.files, portion.bounds[:-1], portion.bounds[1:], strict=True):
        _read(Path(path), portion.rows[start:end], images[start:end])
    _HELD[key] = images
    return images


def describe_hold(data: Processed, params: Params, worker: int = 0, workers: int = 1) -> str:
    """Say where a worker's training images lie, and their size, such as "training images in memory (24 MB)"."""
    portion = portion_of(data, params, worker, workers)
    size = f"{_bytes(data, portion) / _MB:,.0f} MB"
    if params.train.hold == "memory" or (params.train.hold == "auto" and _fits(data, portion)):
        return f"training images in memory ({size})"
    why = "" if params.train.hold == "disk" else f", over a quarter of the {available_memory() / _MB:,.0f} MB available"
    return f"training images read from disk ({size}{why})"


def available_memory(cgroups: Path = _CGROUPS) -> int:
    """Return the bytes that this process may still take: of the machine, or of its container if that has less.

    Parameters
    ----------
    cgroups : Path
        Where the kernel shows the container's limit (Linux, Documentation/admin-guide/cgroup-v2.rst, and v1). Cached
        files count as used there and can be dropped, so that the inactive ones are taken off, as Docker does.
    """
    available = int(psutil.virtual_memory().available)
    for folder, limit, used, cached in (
        (cgroups, "memory.max", "memory.current", "inactive_file"),
        (cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
            left = int((folder / limit).read_text(encoding="ascii")) - int((folder / used).read_text(encoding="ascii"))
            available = min(available, max(0, left + int(stat.get(cached, 0))))
        except (OSError, ValueError):  # no such file, or "max": no limit
            continue
    return available


def _fits(data: Processed, portion: Portion) -> bool:
    return _key(data, portion) in _HELD or _bytes(data, portion) <= _SHARE * available_memory()


def _bytes(data: Processed, portion: Portion) -> int:
    return len(portion.rows) * data.size**2


def _key(data: Processed, portion: Portion) -> tuple[str, ...]:
    checksums = {shard["name"]: shard["sha256"] for shard in data.meta["shards"]}
    return (str(data.size), *(f"{path} {checksums[Path(path).name]}" for path in portion.files))


def _read(path: Path, rows: NDArray[np.int64], images: NDArray[np.uint8]) -> None:
    """Copy the pixels of a shard; the checksums inside are passed over, `open_processed` has checked the whole file."""
    fields = [
        ("length", "<u8"),
        ("length_crc", "<u4"),
        ("row", "<u4"),
        ("pixels", "u1", images.shape[1:]),
        ("crc", "<u4"),
    ]
    try:
        records = np.memmap(path, np.dtype(fields), "r")
    except (OSError, ValueError) as error:  # not there, or no whole number of records
        raise UserError(f"{path} cannot be read ({error}): remove {path.parent} and run `dvc repro`") from None
    if not np.array_equal(records["row"], rows):
        raise UserError(f"{path} does not hold the images that {INDEX} names: remove {path.parent} and run `dvc repro`")
    images[:] = records["pixels"]
