"""The last line of a training: how good its best epoch is, how sure that is, and what to do next."""

import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import replicate, resample, stack
from pipeline.statistics.intervals import Estimate
from pipeline.statistics.ranks import rank_statistic

_STAGE_MODEL = Path("models/model.keras")  # where dvc.yaml has it


def validation_estimate(
    labels: NDArray[np.floating[Any]],
    probabilities: NDArray[np.floating[Any]],
    patients: NDArray[Any],
    params: EvaluateParams,
) -> Estimate:
    """Return the mean AUROC of a model with its interval, over resamples of the patients (docs/statistics.md).

    The same figure as `evaluate` gives for the validation split.

    Parameters
    ----------
    labels : ndarray of shape (n_images, n_findings)
        1, 0, or NaN for unknown.
    probabilities : ndarray of shape (n_images, n_findings)
        In [0, 1].
    patients : ndarray of shape (n_images,)
        Whose image it is.
    params : EvaluateParams
        Number of resamples, level, seed and kind of interval.

    Returns
    -------
    Estimate
        Of the mean over the findings that have both a positive and a negative image; all NaN if none has, or if a
        probability is not finite.
    """
    known = np.asarray(labels, np.float64)
    scores = np.asarray(probabilities, np.float64)
    if not np.isfinite(scores).all():  # NaN would be ranked like a number
        known = np.full_like(known, math.nan)
    resamples = resample(np.asarray(patients, str), known, params)
    single = [
        replicate(rank_statistic(known[:, k], scores[:, k], resamples), resamples)[[0]] for k in range(known.shape[1])
    ]
    return stack(single).mean().estimate()


def closing_line(
    best_epoch: int,
    epochs: int,
    estimate: Estimate,
    n_images: int,
    n_patients: int,
    model: Path,
    *,
    confidence: float = 0.95,
) -> str:
    """Return the line that ends a training.

    Parameters
    ----------
    best_epoch, epochs : int
        The epoch that is kept, from 1, and how many were trained.
    estimate : Estimate
        Of `validation_estimate`.
    n_images, n_patients : int
        Of the validation split.
    model : Path
        Where the model lies.
    confidence : float
        Level of the interval.
    """
    if math.isnan(estimate.value):
        auc = "validation AUC is undefined"
    elif math.isnan(estimate.ci_low):
        auc = f"validation AUC {estimate.value:.4f}, its interval is undefined"
    else:
        auc = (
            f"validation AUC {estimate.value:.4f} ({100 * confidence:g} % interval {estimate.ci_low:.4f} to "
            f"{estimate.ci_high:.4f}), both optimistic, for the epoch was chosen on the same images"
        )
    counts = f"{_counted(n_images, 'image')} of {_counted(n_patients, 'patient')}"
    following = "`dvc repro`" if model == _STAGE_MODEL else f"`cxr evaluate {shlex.quote(str(model))}`"
    return f"best epoch {best_epoch} of {epochs}: {auc}; {counts}; model: {model}; next: {following}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
