"""Is a window like the reference and all windows before it? p values for many windows at once.

Each window is compared with everything before it, the reference first, as in Helmert's contrasts: if nothing has
changed these differences are independent of each other, although all lean on one finite reference, and so bets on one
after another may be multiplied. Comparing each window with the reference alone would count the reference's own error
in every window anew.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc
from scipy.stats import chi2, f

Floats = NDArray[np.float64]


def smooth_p(
    difference: Floats, per_image: Floats, inverse: Floats, rank: Floats, patients: Floats, free: Floats
) -> Floats:
    """Return the p values of differences of means: Hotelling's T^2, its covariance estimated from patients.

    T^2 (m - d) / (d (m - 1)) is F(d, m - d) for m patients (Hotelling, Ann. Math. Statist. 1931;2:360-378).

    Parameters
    ----------
    difference : ndarray of shape (n_windows, n_signals, d)
        Window's mean less the mean of what came before.
    per_image : ndarray of shape (n_windows, n_signals)
        1/n of the window plus 1/n of what came before.
    inverse : ndarray of shape (n_signals, d, d)
        Pseudo-inverse of the covariance of one image (`scores.covariance`).
    rank : ndarray of shape (n_signals,)
        Its rank.
    patients : ndarray of shape (n_signals,)
        How many patients it was estimated from.
    free : ndarray of shape (n_windows, n_signals)
        Degrees of freedom at most: few where few patients stand behind a window (`blocks.freedom`).
    """
    squares = np.einsum("wsi,sij,wsj->ws", difference, inverse, difference) / per_image
    left = np.maximum(patients - rank, 1.0)
    scale = left / (rank * np.maximum(patients - 1, 1.0))
    return np.asarray(f.sf(squares * scale, rank, np.minimum(free, left)))


def mmd_p(difference: Floats, per_image: Floats, eigenvalues: Floats) -> Floats:
    """Return the p values of squared distances of mean features, whose null distribution is a sum of weighted chi^2.

    A chi^2 of the same mean, variance and skewness (Imhof, Biometrika 1961;48:419-426, section 4).

    Parameters
    ----------
    difference : ndarray of shape (n_windows, d)
        Window's mean less the mean of what came before.
    per_image : ndarray of shape (n_windows,)
        As in `smooth_p`.
    eigenvalues : ndarray of shape (d,)
        Of the covariance of one image.
    """
    values = np.maximum(eigenvalues, 0.0)
    first, second, third = (float((values**power).sum()) for power in (1, 2, 3))
    if second <= 0:
        return np.full(len(difference), np.nan)
    degrees = second**3 / third**2
    squares = (difference**2).sum(axis=1) / per_image
    scaled = (squares - first) * np.sqrt(degrees / second) + degrees
    return np.asarray(chi2.sf(scaled, degrees))


def share_p(hits: Floats, n: Floats, before_hits: Floats, before_n: Floats, effect: Floats) -> Floats:
    """Return the p values of a window's share against that of what came before.

    Given all hits together, those of the window are hypergeometric; the binomial, whose tails are heavier, takes its
    place (Hoeffding, J. Am. Statist. Assoc. 1963;58:13-30, section 6), because it allows the effective numbers of
    clustered images, which are not whole: counts are divided by the design effect (Rao and Scott, J. Am. Statist.
    Assoc. 1981;76:221-230). Two-sided by doubling.

    Parameters
    ----------
    hits, n, before_hits, before_n : ndarray of shape (n_windows, n_signals)
        Counts of the window, and of what came before.
    effect : ndarray of shape (n_signals,)
        Design effects, at least 1.
    """
    share = (before_hits + hits) / np.maximum(before_n + n, 1)
    x, m = hits / effect, n / effect
    with np.errstate(invalid="ignore"):
        upper = np.where(x > 0, betainc(np.maximum(x, 1e-9), np.maximum(m - x + 1, 1e-9), share), 1.0)
        misses = m - x
        lower = np.where(misses > 0, betainc(np.maximum(misses, 1e-9), np.maximum(x + 1, 1e-9), 1 - share), 1.0)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(upper, lower)))
