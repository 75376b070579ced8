"""Which test images the report shows: true positives, misses, false alarms, and the most confident mistakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.files import sha256_text
from pipeline.predictions import arrays_of

KINDS = ("true positive", "miss", "false alarm", "confident mistake")
"""In the order of the page. A confident mistake is a miss or a false alarm too."""
_COLUMNS = ["row", "finding", "label", "probability", "threshold", "confidence", "kind", "order"]
_LOOK = 500  # candidates of a finding that are looked at for another patient


@dataclass(frozen=True)
class Case:
    """One image and one finding.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    row : int
        Position of the image in the predictions table of the test split.
    finding : str
        Which finding.
    label : int
        1 present, 0 absent.
    probability, threshold : float
        The model's output, and from where on it counts as positive.
    confidence : float
        Of a mistake: the share of the split's images whose output for this finding is lower (false alarm) or higher
        (miss). Unlike the output itself it can be compared between findings.
    """

    kind: str
    row: int
    finding: str
    label: int
    probability: float
    threshold: float
    confidence: float


def list_cases(
    predictions: pd.DataFrame, findings: Sequence[str], thresholds: Mapping[str, float | None]
) -> pd.DataFrame:
    """List every pair of image and finding that is a true positive, a miss or a false alarm.

    Parameters
    ----------
    predictions : DataFrame
        The test rows of the predictions table.
    findings : sequence of str
        Its findings.
    thresholds : mapping of str to float or None
        Operating point of each finding, on the scale of `p_<Finding>`; output at or above it is positive. A finding
        that is missing here, None or NaN has no cases.

    Returns
    -------
    DataFrame
        `row, finding, label, probability, threshold, confidence, kind, order`; `order` is a hash of image and
        finding: as good as drawn at random, and the same every time.
    """
    labels, outputs = arrays_of(predictions, list(findings))
    images = predictions["image_id"].to_numpy(np.str_)
    parts = [pd.DataFrame(columns=_COLUMNS)]
    for k, name in enumerate(findings):
        threshold = thresholds.get(name)
        known = ~np.isnan(labels[:, k]) & ~np.isnan(outputs[:, k])
        if threshold is not None and not np.isnan(threshold) and known.any():
            part = _classified(labels[known, k] == 1, outputs[known, k], threshold)
            part = part.assign(row=np.flatnonzero(known), finding=name)
            part["order"] = [sha256_text(f"{image} {name}") for image in images[known]]
            parts.append(part.loc[part["kind"] != "", _COLUMNS])
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def choose_cases(
    table: pd.DataFrame, patients: NDArray[np.str_], count: int, boxed: set[tuple[int, str]] | None = None
) -> list[Case]:
    """Choose up to `count` cases of each kind.

    Confident mistakes are the most confident false alarms and the most confident misses, half of each as far as there
    are. The others are as good as drawn at random, not the finest, except that of true positives and misses those
    with a reader's box come first, because they can be judged. Within a kind findings take turns, and each kind
    begins where the one before it stopped. As long as there is another, no patient is shown twice.

    Parameters
    ----------
    table : DataFrame
        Of `list_cases`.
    patients : ndarray of shape (n_images,)
        Whose image each row is.
    count : int
        At most so many of each kind.
    boxed : set of (row, finding)
        Where a reader drew a box.

    Returns
    -------
    list of Case
        In the order of `KINDS`; the same for the same tables.
    """
    has_box = [pair in (boxed or set()) for pair in zip(table["row"], table["finding"], strict=True)]
    table = table.assign(unboxed=~np.array(has_box, np.bool_) & (table["label"] == 1).to_numpy(np.bool_))
    names = list(dict.fromkeys(table["finding"]))
    used: set[str] = set()
    worst = _worst(table, patients, count, used)  # first, so that they are the worst
    cases: list[Case] = []
    for number, kind in enumerate(KINDS[:3]):
        start = number * count % max(1, len(names))
        part = table[table["kind"] == kind].sort_values(["unboxed", "order"])
        rows = _in_turn(part, names[start:] + names[:start], patients, count, used)
        cases += [_case(kind, row) for row in rows]
    return cases + worst


def _worst(table: pd.DataFrame, patients: NDArray[np.str_], count: int, used: set[str]) -> list[Case]:
    """Return the most confident false alarms and misses, half of each as far as there are."""
    parts = [
        table[table["kind"] == kind].sort_values(["confidence", "order"], ascending=[False, True])
        for kind in KINDS[1:3]
    ]
    misses = min(len(parts[0]), max(count // 2, count - len(parts[1])))
    cases: list[Case] = []
    for part, wanted in zip(reversed(parts), (count - misses, misses), strict=True):
        rows = _in_turn(part, list(dict.fromkeys(part["finding"])), patients, wanted, used)
        cases += [_case(KINDS[3], row) for row in rows]
    return cases


def _classified(present: NDArray[np.bool_], output: NDArray[np.float64], threshold: float) -> pd.DataFrame:
    """Return kind ('' for a true negative) and confidence of one finding's images."""
    positive = output >= threshold
    lower, higher = _shares(output)
    return pd.DataFrame(
        {
            "label": present.astype(np.int64),
            "probability": output,
            "threshold": threshold,
            "confidence": np.where(positive, lower, higher),
            "kind": np.select([present & positive, present, positive], KINDS[:3], ""),
        }
    )


def _shares(output: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each output the share of all that are lower, and the share that are higher."""
    ordered = np.sort(output)
    lower = np.searchsorted(ordered, output, "left") / len(output)
    return lower, 1 - np.searchsorted(ordered, output, "right") / len(output)


def _in_turn(
    part: pd.DataFrame, turn: list[str], patients: NDArray[np.str_], count: int, used: set[str]
) -> list[dict[str, Any]]:
    """Take the best row of each finding in turn, of patients not used yet as long as there are some."""
    left = {name: _records(group.head(_LOOK)) for name, group in part.groupby("finding", sort=False)}
    chosen: list[dict[str, Any]] = []
    for fresh in (True, False):
        while len(chosen) < count:
            before = len(chosen)
            for name in turn:
                found = [row for row in left.get(name, []) if not fresh or str(patients[row["row"]]) not in used]
                if found and len(chosen) < count:
                    left[name].remove(found[0])
                    chosen.append(found[0])
                    used.add(str(patients[found[0]["row"]]))
            if len(chosen) == before:
                break
    return chosen


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


def _case(kind: str, row: dict[str, Any]) -> Case:
    numbers = (float(row[name]) for name in ("probability", "threshold", "confidence"))
    return Case(kind, int(row["row"]), str(row["finding"]), int(row["label"]), *numbers)
