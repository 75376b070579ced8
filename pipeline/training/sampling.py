"""Which training images a worker reads in an epoch, and how often each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.shards import Processed

_STREAM = 2  # keeps the numbers apart from those of the order, the augmentation and the mixing


@dataclass(frozen=True)
class Portion:
    """What one of several workers reads of the training split: whole files.

    Attributes
    ----------
    files : tuple of str
        Paths.
    bounds : ndarray of shape (n_files + 1,), dtype=int64
        File k holds the positions bounds[k] to bounds[k + 1] - 1.
    rows : ndarray of shape (n_images,), dtype=int64
        Position to row of the table.
    images : int
        Images that the worker gives in an epoch: as many as the worker with the most has, so that all take the same
        steps. A worker with fewer starts again through its own files.
    batch : int
        Images a step of this worker.
    """

    files: tuple[str, ...]
    bounds: NDArray[np.int64]
    rows: NDArray[np.int64]
    images: int
    batch: int

    @property
    def steps(self) -> int:
        """Steps an epoch; the last may have fewer images."""
        return -(-self.images // self.batch)

    @property
    def passes(self) -> int:
        """How often the worker begins its files in an epoch; 1 unless others have more images."""
        return -(-self.images // len(self.rows))


def portion_of(data: Processed, params: Params, worker: int = 0, workers: int = 1) -> Portion:
    """Share the files of the training split out between workers: each file to one, the images as evenly as files allow.

    The largest file first, each to the worker with the fewest images so far (Graham, "Bounds on multiprocessing
    timing anomalies", 1969: at most a third more than the best). Every worker computes the same shares.

    Raises
    ------
    UserError
        If there are fewer files than workers, or the batch cannot be shared out evenly.
    """
    batch = params.train.batch_size
    if batch % workers:
        raise UserError(
            f"train.batch_size is {batch}, and {workers} workers share it: each must get as many images; set it to a "
            f"multiple of {workers}"
        )
    table = data.rows("train")
    counts = table.groupby("shard", sort=False).size()
    paths = {Path(path).name: path for path in data.files("train")}
    if len(counts) < workers:
        raise UserError(
            f"{data.folder} holds {len(counts)} training file(s) for {workers} workers, and each needs one: set "
            f"preprocess.shard_images to {max(1, len(table) // (4 * workers))} or less, or take fewer workers"
        )
    names, totals = [list[str]() for _ in range(workers)], [0] * workers
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        least = totals.index(min(totals))
        names[least].append(str(name))
        totals[least] += int(count)
    mine = [str(name) for name in counts.index if name in set(names[worker])]
    rows = [table.loc[table["shard"] == name, "row"].to_numpy(np.int64) for name in mine]
    return Portion(
        files=tuple(paths[name] for name in mine),
        bounds=np.cumsum([0, *map(len, rows)], dtype=np.int64),
        rows=np.concatenate(rows),
        images=max(totals),
        batch=batch // workers,
    )


def repeat_factors(labels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how much oftener than an image of the commonest kind each image is to be seen.

    Gupta, Dollár and Girshick, "LVIS: a dataset for large vocabulary instance segmentation", CVPR 2019, section 3.2:
    a category has the factor max(1, sqrt(t / f)) with f the share of images that hold it, an image the largest
    factor of its categories. An image without a positive finding is of a category of its own, "none", and t is the
    share of the commonest category, so that one finding in few or in most of the images is evened out too. The square
    root is on purpose: with 1 / f a handful of images would be most of an epoch.

    Parameters
    ----------
    labels : ndarray of shape (n_images, n_findings), dtype=float32
        1, 0, or NaN for unknown, which counts as not positive.

    Returns
    -------
    ndarray of shape (n_images,), dtype=float64
        At least 1.
    """
    positive = labels == 1
    kinds = np.column_stack([positive, ~positive.any(axis=1)])
    shares = kinds.mean(axis=0)
    factors = np.sqrt(shares.max() / np.where(shares > 0, shares, 1.0))
    return np.asarray(np.where(kinds, np.maximum(factors, 1.0), 1.0).max(axis=1), np.float64)


def draw_copies(factors: NDArray[np.float64], seed: int, epoch: int) -> NDArray[np.int64]:
    """Say how often each image is seen in an epoch: on average in proportion to its factor, in all as many as images.

    Systematic sampling (Madow, "On the theory of systematic sampling, II", 1949) over the images in random order: the
    expected number, rounded up or down, so that the images of an epoch can be read in the order of the disk.

    Returns
    -------
    ndarray of shape (n_images,), dtype=int64
        0 or more, of sum n_images.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, epoch], spawn_key=(_STREAM,)))
    order = rng.permutation(len(factors))
    edges = np.cumsum(factors[order])
    edges *= len(factors) / edges[-1]
    edges[-1] = len(factors)  # despite rounding
    copies = np.empty(len(factors), np.int64)
    copies[order] = np.diff(np.floor(edges + rng.random()), prepend=0)
    return copies
