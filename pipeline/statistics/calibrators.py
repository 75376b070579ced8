"""The calibrators: monotone maps from a model's output to a probability, and how each is fitted.

Temperature (Guo et al., ICML 2017), Platt (Advances in Large Margin Classifiers 1999), isotonic (Zadrozny and Elkan,
KDD 2002) or none. Fitting needs SciPy and scikit-learn; `apply`, which a served model runs, only NumPy.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.statistics.intervals import Floats

METHODS = ("none", "temperature", "platt", "isotonic")
"""From the simplest to the most flexible: 0, 1, 2 and as many parameters as steps."""
EPSILON = 2.0**-24
"""Probabilities are cut to [EPSILON, 1 - EPSILON] before a logit or a logarithm; 1 - 2^-24 is the last float32 below 1,
so that a saturated model output and its neighbour count the same."""
_LOG_TEMPERATURE = 3.0  # temperatures between e^-3 and e^3, about 1/20 and 20


def apply(fitted: dict[str, Any], probabilities: NDArray[np.floating[Any]]) -> Floats:
    """Calibrate the outputs of one finding.

    Parameters
    ----------
    fitted : dict
        Of `fit`, or as read back from JSON: both give the same numbers.
    probabilities : ndarray
        In [0, 1], of any shape; NaN stays NaN.

    Returns
    -------
    ndarray of the same shape, dtype=float64
        In [0, 1], and nowhere falling as the input rises.
    """
    p = np.asarray(probabilities, np.float64)
    method, parameters = fitted["method"], fitted["parameters"]
    if method == "none":
        return p.copy()
    if method == "temperature":
        return _sigmoid(_logit(p) / parameters["temperature"])
    if method == "platt":
        return _sigmoid(parameters["slope"] * _logit(p) + parameters["intercept"])
    if method == "isotonic":
        return np.asarray(np.interp(p, parameters["x"], parameters["y"]), np.float64)
    raise UserError(
        f"calibration.json names the method {method!r}; {', '.join(METHODS)} are known: run `cxr evaluate` again"
    )


def log_loss(y: Floats, p: Floats) -> Floats:
    """Return each image's logarithmic loss in nats, with probabilities cut at `EPSILON`."""
    cut = np.clip(p, EPSILON, 1 - EPSILON)
    losses: Floats = -np.where(y == 1, np.log(cut), np.log1p(-cut))
    return losses


def _fit_temperature(y: Floats, p: Floats) -> dict[str, Any]:
    """Return the one divisor of the logit with the least log-loss (Guo et al. 2017, section 4.2).

    By `scipy.optimize.minimize_scalar`; scikit-learn has temperature scaling only inside `CalibratedClassifierCV`,
    around a classifier. The loss has one minimum in the inverse temperature, so also in its logarithm.
    """
    from scipy.optimize import minimize_scalar

    z = np.where(y == 1, 1.0, -1.0) * _logit(p)
    bounds = (-_LOG_TEMPERATURE, _LOG_TEMPERATURE)
    found = minimize_scalar(
        lambda t: float(np.logaddexp(0, -z * np.exp(-t)).mean()), bounds=bounds, options={"xatol": 1e-10}
    )
    return {"temperature": float(np.exp(found.x))}


def _fit_platt(y: Floats, p: Floats) -> dict[str, Any]:
    """Return slope and intercept of the logit (Platt 1999), the slope not below 0.

    Fitted to Platt's targets, (n_positive + 1) / (n_positive + 2) and 1 / (n_negative + 2), which keep the slope
    finite where a threshold separates the classes: each image counts as both classes, with the target's weights, in
    `sklearn.linear_model.LogisticRegression` without penalty. Were the slope negative, the best one not below 0 is 0,
    because the loss is convex: the calibrated probability is then the prevalence.
    """
    from sklearn.linear_model import LogisticRegression

    target = np.where(y == 1, *_limits(y)[::-1])
    z = _logit(p)
    middle, spread = float(z.mean()), float(z.std())
    flat = {"slope": 0.0, "intercept": float(_logit(np.array([target.mean()]))[0])}
    if spread < 1e-9:
        return flat
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    twice = np.tile((z - middle) / spread, 2)[:, None]
    model.fit(twice, np.repeat([1, 0], len(z)), sample_weight=np.concatenate([target, 1 - target]))
    slope = float(model.coef_[0, 0]) / spread
    return {"slope": slope, "intercept": float(model.intercept_[0]) - slope * middle} if slope > 0 else flat


def _fit_isotonic(y: Floats, p: Floats) -> dict[str, Any]:
    """Return the corners of the best non-decreasing map (Zadrozny and Elkan 2002), straight between them.

    By `sklearn.isotonic.IsotonicRegression`. Its ends are held at Platt's targets: a run of images without a positive
    does not make a probability of exactly 0.
    """
    from sklearn.isotonic import IsotonicRegression

    low, high = _limits(y)
    model = IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(p, y)
    return {"x": model.X_thresholds_.tolist(), "y": model.y_thresholds_.tolist()}


FITTERS: dict[str, Callable[[Floats, Floats], dict[str, Any]]] = {
    "none": lambda _y, _p: {},
    "temperature": _fit_temperature,
    "platt": _fit_platt,
    "isotonic": _fit_isotonic,
}


def note_on(method: str, parameters: dict[str, Any]) -> str:
    """Return what a reader should know of a fit that ran into a bound, or nothing."""
    if method == "temperature" and abs(np.log(parameters["temperature"])) > _LOG_TEMPERATURE - 1e-6:
        return "the temperature is at the end of its range: the outputs separate the classes, or tell nothing of them"
    if method == "platt" and parameters["slope"] == 0:
        return "the outputs do not rise with the finding: every calibrated probability is the prevalence"
    return ""


def _limits(y: Floats) -> tuple[float, float]:
    n_positive, n_negative = float((y == 1).sum()), float((y == 0).sum())
    return 1 / (n_negative + 2), (n_positive + 1) / (n_positive + 2)


def _logit(p: Floats) -> Floats:
    cut = np.clip(p, EPSILON, 1 - EPSILON)
    logits: Floats = np.log(cut) - np.log1p(-cut)
    return logits


def _sigmoid(z: Floats) -> Floats:
    values: Floats = 1 / (1 + np.exp(-np.clip(z, -700, 700)))  # beyond 709 the exponential of a float64 is infinite
    return values
