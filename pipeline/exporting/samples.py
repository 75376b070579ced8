"""Images of a split that are chosen by number: some for calibration, some to compare formats on."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.scoring_input import images_in_order
from pipeline.shards import Processed

_BATCH = 256


def some_rows(n_rows: int, count: int, seed: int) -> NDArray[np.intp]:
    """Return `count` of the numbers 0 to `n_rows` - 1 in rising order, without repetition; all if there are fewer."""
    chosen = np.random.default_rng(seed).permutation(n_rows)[:count]
    return np.sort(chosen)


def whole_patients(patients: pd.Series, count: int, seed: int) -> NDArray[np.intp]:
    """Return the numbers of the rows of random whole patients who have about `count` images together.

    Patients are taken until they have `count` images or more; all, if there are fewer.
    """
    number, names = pd.factorize(patients)
    order = np.random.default_rng(seed).permutation(len(names))
    before = np.cumsum(np.bincount(number, minlength=len(names))[order]) - np.bincount(number)[order]
    return np.flatnonzero(np.isin(number, order[before < count]))


def read_images(data: Processed, split: str, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Return images of a split by their numbers in `data.rows(split)`, rising; uint8 (n, size, size, 1)."""
    found, start = [], 0
    for batch in images_in_order(data, split, _BATCH):
        images = batch.numpy()
        inside = rows[(rows >= start) & (rows < start + len(images))]
        found.append(images[inside - start])
        start += len(images)
    return np.concatenate(found) if found else np.empty((0, data.size, data.size, 1), np.uint8)
