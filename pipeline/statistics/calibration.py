"""Probabilities that can be taken at their word: a calibrator for each finding, chosen and fitted on validation images.

The maps themselves are in `pipeline.statistics.calibrators`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.params import EvaluateParams
from pipeline.statistics.calibrators import FITTERS, METHODS, apply, log_loss, note_on
from pipeline.statistics.intervals import Floats

FOLDS = 5
MIN_PATIENTS = 10
"""Least patients with and without a finding: ten events for a parameter (Peduzzi et al., J. Clin. Epidemiol.
1996;49:1373-1379), and two in each fold."""
RULE = (
    f"log-loss on held-out patients ({FOLDS} folds, whole patients, stratified); the simplest method whose log-loss is "
    "within one standard error of the least, the error being that of the paired difference over patients"
)


def fit_all(
    labels: NDArray[np.floating[Any]],
    probabilities: NDArray[np.floating[Any]],
    patients: NDArray[Any],
    findings: list[str],
    params: EvaluateParams,
) -> dict[str, Any]:
    """Fit a calibrator for each finding; what `reports/calibration.json` holds.

    Parameters
    ----------
    labels, probabilities : ndarray of shape (n_images, n_findings)
        Of the validation split: 1, 0 or NaN, and the model's raw outputs.
    patients : ndarray of shape (n_images,)
        Whose image it is.
    findings : list of str
        Names of the columns.
    params : EvaluateParams
        Method and seed.
    """
    fitted = {name: fit(labels[:, k], probabilities[:, k], patients, params) for k, name in enumerate(findings)}
    return {"fitted_on": "val", "chosen_by": RULE if params.calibration == "auto" else "params", "findings": fitted}


def fit(
    labels: NDArray[np.floating[Any]],
    probabilities: NDArray[np.floating[Any]],
    patients: NDArray[Any],
    params: EvaluateParams,
) -> dict[str, Any]:
    """Choose and fit the calibrator of one finding.

    The choice is by log-loss on held-out patients, because the log-loss of the images a method was fitted on always
    favours the most flexible one. It takes the simplest method within one standard error of the best (Hastie,
    Tibshirani and Friedman, The Elements of Statistical Learning, 2nd ed., section 7.10). The standard error is that of
    the paired difference of two methods, summed over patients: unpaired, the folds' different shares of positives
    would drown all differences of a rare finding.

    Parameters
    ----------
    labels : ndarray of shape (n_images,)
        1, 0, or NaN for images to leave out.
    probabilities : ndarray of shape (n_images,)
        The model's outputs, in [0, 1].
    patients : ndarray of shape (n_images,)
        Whose image it is.
    params : EvaluateParams
        `calibration` (auto, or the method to fit) and `seed`.

    Returns
    -------
    dict
        `method`, `parameters`, `log_loss` of every method on held-out patients (NaN where it cannot be had),
        `n_positive`, `n_negative`, `note`. With fewer than `MIN_PATIENTS` patients with or without the finding the
        method is none, whatever `params` ask for, and `note` says so.
    """
    from threadpoolctl import threadpool_limits

    known = ~np.isnan(labels)
    y, p = labels[known].astype(np.float64), probabilities[known].astype(np.float64)
    _, patient = np.unique(patients[known], return_inverse=True)
    counts = {"n_positive": int((y == 1).sum()), "n_negative": int((y == 0).sum())}
    n_with, n_without = (len(np.unique(patient[y == value])) for value in (1, 0))
    if min(n_with, n_without) < MIN_PATIENTS:
        scores = dict.fromkeys(METHODS, float("nan")) | {"none": _mean(log_loss(y, p))}
        note = f"{n_with} patients with the finding, {n_without} without: {MIN_PATIENTS} of each are needed to fit"
        return {"method": "none", "parameters": {}, "log_loss": scores, **counts, "note": note}
    with threadpool_limits(limits=1):  # the sums are small: threads that wait for each other cost ten times more
        losses = held_out_losses(y, p, patient, params.seed)
        method = choose(losses, patient) if params.calibration == "auto" else params.calibration
        parameters = FITTERS[method](y, p)
    scores = {name: _mean(values) for name, values in losses.items()}
    note = note_on(method, parameters)
    return {"method": method, "parameters": parameters, "log_loss": scores, **counts, "note": note}


def apply_all(
    calibration: dict[str, Any], findings: list[str], probabilities: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Calibrate the outputs of a model, shape (n_images, n_findings), a column per finding.

    Raises
    ------
    UserError
        If the calibration lacks a finding.
    """
    missing = [name for name in findings if name not in calibration["findings"]]
    if missing:
        raise UserError(
            f"calibration.json has no {', '.join(missing)}, only {', '.join(calibration['findings'])}: it belongs to "
            "another model; run `cxr evaluate` again"
        )
    columns = [apply(calibration["findings"][name], probabilities[:, k]) for k, name in enumerate(findings)]
    return np.stack(columns, axis=1) if columns else np.empty(probabilities.shape, np.float64)


def held_out_losses(y: Floats, p: Floats, patient: NDArray[np.intp], seed: int) -> dict[str, Floats]:
    """Return the log-loss of every image by every method, each fitted without the image's fold of patients."""
    held_out = {name: np.empty(len(y)) for name in METHODS}
    fold = folds_of(y, patient, seed)[patient]
    for number in range(FOLDS):
        left = fold == number
        for name in METHODS:
            fitted = {"method": name, "parameters": FITTERS[name](y[~left], p[~left])}
            held_out[name][left] = log_loss(y[left], apply(fitted, p[left]))
    return held_out


def folds_of(y: Floats, patient: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """Return each patient's fold: patients, in random order, are dealt out by their number of positive images.

    So the folds have equally many patients, and equally many with each number of positive images, to within one.
    scikit-learn's StratifiedGroupKFold does the same in a Python loop over patients, which takes seconds a finding.
    """
    positives = np.bincount(patient, weights=y)
    order = np.random.default_rng(seed).permutation(len(positives))
    fold = np.empty(len(positives), np.intp)
    fold[order[np.argsort(positives[order], kind="stable")]] = np.arange(len(positives)) % FOLDS
    return fold


def choose(losses: dict[str, Floats], patient: NDArray[np.intp]) -> str:
    """Return the simplest method within one standard error of the least mean loss; see `fit`.

    The error of a mean difference is that of a ratio of sums over patients (Cochran, Sampling Techniques, 3rd ed.,
    section 6.4, with whole patients as units).
    """
    best = min(METHODS, key=lambda name: losses[name].mean())
    n_patients = int(patient.max()) + 1
    images = np.bincount(patient, minlength=n_patients)
    for name in METHODS:
        excess = losses[name] - losses[best]
        away = np.bincount(patient, weights=excess, minlength=n_patients) - excess.mean() * images
        error = np.sqrt((away**2).sum() * n_patients / (n_patients - 1)) / len(excess)
        if excess.mean() <= error:
            return name
    return best


def _mean(losses: Floats) -> float:
    return float(losses.mean()) if len(losses) else float("nan")
