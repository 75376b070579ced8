"""The metadata floor: what a model reaches that sees no pixel, only how and of whom the image was taken.

A logistic regression on view, sex, age, follow-up number and original size, fitted on train and scored on the test
images beside the network. A network that does no better may have read the acquisition and not the chest (DeGrave et
al., Nature Machine Intelligence 2021;3:610-619).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.statistics.bootstrap import Replicates, Resamples, replicate, stack
from pipeline.statistics.intervals import Floats
from pipeline.statistics.ranks import rank_statistic

WORDS = ("view", "sex")
NUMBERS = ("age", "followup", "width", "height")
_LOGARITHM = ("width", "height")  # sizes differ by factors


@dataclass(frozen=True)
class FittedFloor:
    """What the floor saw and what it says.

    Attributes
    ----------
    features : list of str
        The columns it was fitted on.
    dropped : list of str
        The columns that are equal for all training images, or not there.
    probabilities : ndarray of shape (n_test_images, n_findings)
        NaN for findings without both classes in train, and for all where no feature is left.
    not_fitted : list of str
        Those findings.
    """

    features: list[str]
    dropped: list[str]
    probabilities: Floats
    not_fitted: list[str]


def floor(
    train_rows: pd.DataFrame | None,
    test_rows: pd.DataFrame,
    findings: list[str],
    probabilities: Floats,
    resamples: Resamples,
) -> tuple[dict[str, Any], Floats | None]:
    """Fit the floor on train and score it, and the model's distance from it, on test.

    Parameters
    ----------
    train_rows : DataFrame or None
        The index's rows of the split train: `view`, `sex`, `age`, `followup`, `width`, `height` and a column for each
        finding. None where no training images are known, as for a table of predictions alone.
    test_rows : DataFrame
        Those of test, in the order of `probabilities` and `resamples`.
    findings : list of str
        What to score.
    probabilities : ndarray of shape (n_test_images, n_findings)
        Of the model that is compared with the floor.
    resamples : Resamples
        Of the test images.

    Returns
    -------
    document : dict
        What reports/floor.json holds; only `notes` without training images.
    probabilities : ndarray of shape (n_test_images, n_findings) or None
        The floor's.
    """
    if train_rows is None:
        return {"notes": "no floor: the table holds no training images to fit it on"}, None
    fitted = fit_floor(train_rows, test_rows, findings)
    labels = _labels(test_rows, findings)
    of_floor, of_model = (_aurocs(labels, scores, resamples) for scores in (fitted.probabilities, probabilities))
    difference = of_model - of_floor
    document = {
        "fitted_on": "train",
        "scored_on": "test",
        "train_images": len(train_rows),
        "features": fitted.features,
        "dropped": fitted.dropped,
        "not_fitted": fitted.not_fitted,
        "macro": of_floor.mean().estimate().as_dict("auc") | {"n_findings": int((~np.isnan(of_floor.point)).sum())},
        "findings": {name: _row(of_floor, labels, k) for k, name in enumerate(findings)},
        # The mean of differences, not the difference of means: both sides over the same findings.
        "macro_difference": difference.mean().estimate().as_dict("difference"),
        "differences": {name: difference.estimate(k).as_dict("difference") for k, name in enumerate(findings)},
        "notes": _notes(fitted),
    }
    return document, fitted.probabilities


def fit_floor(train_rows: pd.DataFrame, test_rows: pd.DataFrame, findings: list[str]) -> FittedFloor:
    """Fit a logistic regression for each finding on train, and return its probabilities for test.

    By scikit-learn: one-hot view and sex; age, follow-up number and the logarithms of width and height standardised,
    what is missing set to the median with a column that says so; `LogisticRegression` with its default L2 penalty. A
    finding is fitted on the images whose label is known.

    Parameters
    ----------
    train_rows, test_rows : DataFrame
        As in `floor`.
    findings : list of str
        What to predict.
    """
    from sklearn.linear_model import LogisticRegression

    train, test = features_of(train_rows), features_of(test_rows)
    features = [name for name in train.columns if train[name].nunique(dropna=False) > 1]
    probabilities = np.full((len(test), len(findings)), np.nan)
    labels = _labels(train_rows, findings)
    usable = [k for k in range(len(findings)) if features and {0.0, 1.0} <= set(np.unique(labels[:, k]))]
    if usable:
        transform = _transform(features).fit(train)
        seen, unseen = transform.transform(train), transform.transform(test)
    for k in usable:
        known = ~np.isnan(labels[:, k])
        regression = LogisticRegression(max_iter=1000).fit(seen[known], labels[known, k])
        probabilities[:, k] = regression.predict_proba(unseen)[:, 1]
    dropped = [name for name in (*WORDS, *NUMBERS) if name not in features]
    return FittedFloor(features, dropped, probabilities, [name for k, name in enumerate(findings) if k not in usable])


def features_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the metadata that rows have: words with '' for unknown, numbers as floats, sizes as logarithms."""
    columns: dict[str, Any] = {
        name: rows[name].astype("object").fillna("").astype(str) for name in WORDS if name in rows.columns
    }
    for name in NUMBERS:
        if name in rows.columns:
            values = rows[name].astype("Float64").to_numpy(np.float64, na_value=np.nan)
            columns[name] = pd.Series(np.log(values) if name in _LOGARITHM else values, index=rows.index)
    return pd.DataFrame(columns, index=rows.index)


def _transform(features: list[str]) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    words, numbers = ([name for name in kind if name in features] for kind in (WORDS, NUMBERS))
    return make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), words),
        (make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()), numbers),
    )


def _labels(rows: pd.DataFrame, findings: list[str]) -> Floats:
    return rows[findings].to_numpy(np.float64, na_value=np.nan)


def _aurocs(labels: Floats, scores: NDArray[np.floating[Any]], resamples: Resamples) -> Replicates:
    """Return the AUROC of each finding; NaN where a score is NaN."""
    known = np.where(np.isnan(scores), np.nan, labels)
    return stack(
        [
            replicate(rank_statistic(known[:, k], scores[:, k], resamples), resamples)[[0]]
            for k in range(scores.shape[1])
        ]
    )


def _row(aurocs: Replicates, labels: Floats, k: int) -> dict[str, float]:
    counts = {"n_positive": int((labels[:, k] == 1).sum()), "n_negative": int((labels[:, k] == 0).sum())}
    return aurocs.estimate(k).as_dict("auc") | counts


def _notes(fitted: FittedFloor) -> str:
    notes = []
    if fitted.dropped:
        notes.append(f"not used, because equal for all training images or absent: {', '.join(fitted.dropped)}")
    if not fitted.features:
        notes.append("no feature is left, so the floor is undefined")
    elif fitted.not_fitted:
        notes.append(f"undefined, because train lacks a positive or a negative: {', '.join(fitted.not_fitted)}")
    return "; ".join(notes)
