"""How near a format is to the Keras model on the same images, and whether that is near enough."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.params import EvaluateParams
from pipeline.params.exporting import ExportParams
from pipeline.statistics.bootstrap import Replicates, Resamples, replicate, resample, stack
from pipeline.statistics.ranks import rank_statistic

Floats = NDArray[np.floating[Any]]
GATED_BY_AUC = ("int8",)
"""Formats whose loss of mean AUROC is bounded, beside the differences of their probabilities."""


class Reference:
    """The Keras model's outputs on the images that formats are compared on.

    A model that was trained in mixed precision rounds its activations to 8 bits of mantissa when `evaluate` asks it.
    The formats compute its float32 weights in float32, so that is what their probabilities are compared with; their
    AUROC is compared with that of the model as it was evaluated.

    Parameters
    ----------
    labels : ndarray of shape (n_images, n_findings)
        1, 0 or NaN.
    evaluated : ndarray of shape (n_images, n_findings)
        The Keras model's raw probabilities in the precision of its training, as `evaluate` has them.
    exact : ndarray of shape (n_images, n_findings)
        The same in float32; equal to `evaluated` for a model that was trained in float32.
    patients : ndarray of shape (n_images,)
        Whose image it is.
    params : EvaluateParams
        The bootstrap.
    """

    def __init__(
        self, labels: Floats, evaluated: Floats, exact: Floats, patients: NDArray[Any], params: EvaluateParams
    ) -> None:
        self._labels, self._evaluated, self._exact = (each.astype(np.float64) for each in (labels, evaluated, exact))
        self._resamples = resample(patients.astype(str), self._labels, params)
        self._aucs = _aucs(self._labels, self._evaluated, self._resamples)

    @property
    def auc(self) -> float:
        """The Keras model's mean AUROC; NaN if it is undefined for every finding."""
        return float(self._aucs.mean().point[0])

    def compare(self, probabilities: Floats) -> dict[str, Any]:
        """Return differences of another engine's probabilities, and its loss of mean AUROC with a paired interval.

        Returns
        -------
        dict
            `max_difference`, `mean_difference` (absolute, over images and findings, from the Keras model in float32),
            `max_difference_evaluated` (from the model as it was evaluated), `auc`, `auc_loss` (of the model as it was
            evaluated minus this one's; positive is worse) with the keys of `Estimate.as_dict`; NaN where undefined.
        """
        mine = probabilities.astype(np.float64)
        apart, evaluated = np.abs(mine - self._exact), np.abs(mine - self._evaluated)
        aucs = _aucs(self._labels, mine, self._resamples)
        loss = (self._aucs - aucs).mean().estimate()
        spread = {"max_difference": float(apart.max()), "mean_difference": float(apart.mean())}
        spread["max_difference_evaluated"] = float(evaluated.max())
        return spread | {"auc": float(aucs.mean().point[0])} | loss.as_dict("auc_loss")


def faults(name: str, row: dict[str, Any], params: ExportParams) -> list[str]:
    """Return why a format is not near enough, in words with its figures; nothing if it is.

    Parameters
    ----------
    name : str
        The format.
    row : dict
        Of `Reference.compare`. An undefined AUROC is no fault, an undefined difference is one.
    params : ExportParams
        What is allowed.
    """
    found, allowed = [], params.tolerance(name)
    if not row["max_difference"] <= allowed:
        found.append(f"{name}: a probability differs by {row['max_difference']:.2g}, {allowed:g} is allowed")
    if name in GATED_BY_AUC and row["auc_loss"] > params.auc_loss:
        low, high = row["auc_loss_ci_low"], row["auc_loss_ci_high"]
        interval = f"paired interval {low:.4f} to {high:.4f}"
        found.append(f"{name}: mean AUC falls by {row['auc_loss']:.4f} ({interval}), {params.auc_loss:g} is allowed")
    return found


def _aucs(labels: Floats, probabilities: Floats, resamples: Resamples) -> Replicates:
    columns = range(labels.shape[1])
    return stack(
        [replicate(rank_statistic(labels[:, k], probabilities[:, k], resamples), resamples)[[0]] for k in columns]
    )
