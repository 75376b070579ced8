"""From p values to decisions: bets against "nothing has changed" that may be looked at whenever one likes.

An e-value is what a bet of 1 against the null hypothesis paid out; its expectation is at most 1 if the hypothesis is
true. The wealth of betting on and on is an e-process: by Ville's inequality the chance that it ever reaches 1/alpha is
at most alpha, however often one looks (Ramdas et al., Statistical Science 2023;38:576-601).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_P = 1e-5
"""Smaller p values are not believed: so far the approximations behind them were checked (docs/monitoring.md)."""


def e_values(p: Floats) -> Floats:
    """Turn p values into e-values, NaN into 1 (no bet).

    The mixture calibrator (1 - p + p ln p) / (p (ln p)^2): the mean over kappa in (0, 1) of kappa p^(kappa - 1)
    (Vovk and Wang, Annals of Statistics 2021;49:1736-1754, equation 2).

    Parameters
    ----------
    p : ndarray
        In [0, 1], any shape.
    """
    clipped = np.clip(p, LEAST_P, 1 - 1e-4)  # at 1 the formula is 0/0; its limit is 1/2
    logs = np.log(clipped)
    found = (1 - clipped + clipped * logs) / (clipped * logs**2)
    return np.where(np.isnan(p), 1.0, found)


@dataclass
class Wealth:
    """Bets on a change that may begin in any window of a period, one bettor for each signal.

    Of a wealth of 1, one part in `period` is put aside for a change that begins in window 1, one for window 2, and so
    on; what has begun is bet on in every later window. The sum is an e-process under the null hypothesis (a mixture
    over starting times, as in Shin, Ramdas and Rinaldo, New England J. Statist. Data Sci. 2023, section 4). After a
    period it begins anew: at most `alpha` of the periods raise a false alarm.

    Attributes
    ----------
    period : int
        Windows.
    active : ndarray of shape (n_signals,)
        Wealth of the bets that have begun.
    best : ndarray of shape (n_signals,)
        Wealth of the best of them.
    since : ndarray of shape (n_signals,), dtype=int64
        The window in which that one began: the most likely start of a change.
    """

    period: int
    active: Floats
    best: Floats
    since: NDArray[np.int64]

    @classmethod
    def of(cls, n_signals: int, period: int) -> "Wealth":
        """Return the wealth before the first window."""
        return cls(period, np.zeros(n_signals), np.zeros(n_signals), np.zeros(n_signals, np.int64))

    def bet(self, e: Floats, window: int) -> Floats:
        """Take in the e-values of a window (counted from 0) and return each signal's wealth after it."""
        place = window % self.period
        if place == 0:
            self.active[:], self.best[:] = 0.0, 0.0
        stake = 1 / self.period
        newer = self.best < stake
        self.since[newer] = window
        self.best = np.where(newer, stake, self.best) * e
        self.active = np.minimum((self.active + stake) * e, 1e200)
        self.best = np.minimum(self.best, 1e200)
        return self.active + (self.period - place - 1) * stake


def e_bh(wealth: Floats, alpha: float) -> NDArray[np.bool_]:
    """Say which signals have changed: e-BH, false discovery rate at most `alpha` under any dependence.

    The k* largest, k* the largest k with e_(k) >= n / (alpha k) (Wang and Ramdas, J. R. Statist. Soc. B
    2022;84:822-852).

    Parameters
    ----------
    wealth : ndarray of shape (n_signals,)
        Of each signal.
    alpha : float
        False discovery rate.
    """
    n = len(wealth)
    order = np.argsort(-wealth, kind="stable")
    enough = np.flatnonzero(wealth[order] * np.arange(1, n + 1) >= n / alpha)
    found = np.zeros(n, np.bool_)
    if len(enough):
        found[order[: enough[-1] + 1]] = True
    return found


def bh(p: Floats) -> Floats:
    """Return p values adjusted by Benjamini and Hochberg's step-up rule (J. R. Statist. Soc. B 1995;57:289-300).

    NaN stays NaN and is not counted as a test.

    Parameters
    ----------
    p : ndarray of shape (n_signals,)
        Their own p values; discovered, at false discovery rate alpha, are those whose adjusted one is at most alpha.
    """
    known = np.flatnonzero(~np.isnan(p))
    adjusted = np.full(len(p), np.nan)
    order = known[np.argsort(p[known], kind="stable")]
    ranked = p[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(ranked[::-1])[::-1])
    return adjusted
