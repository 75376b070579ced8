"""A few numbers that stand for a network's features: in the prediction log, and in its reference."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

SKETCH = 16
"""Numbers of a feature sketch."""


def sketch_features(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reduce features to a few numbers whose distances are about those of the features.

    Sparse random projections (Achlioptas, J Comput Syst Sci 2003;66:671-687) from a fixed seed, so that sketches of
    different days can be compared; nobody can be found again from sixteen numbers.

    Parameters
    ----------
    features : ndarray of shape (n, d), dtype=float32
        Of `Exported.embedding`.

    Returns
    -------
    ndarray of shape (n, SKETCH), dtype=float32
    """
    return np.asarray(features @ _projection(features.shape[1]), np.float32)


@cache
def _projection(length: int) -> NDArray[np.float32]:
    """Return the matrix of Achlioptas' second scheme, shape (length, SKETCH): √3 with -1, 0, 1 at 1/6, 2/3, 1/6."""
    rng = np.random.default_rng(20030616)
    signs = rng.choice(np.array([-1, 0, 0, 0, 0, 1], np.float32), (length, SKETCH))
    return np.asarray(signs * np.float32(np.sqrt(3 / SKETCH)), np.float32)
