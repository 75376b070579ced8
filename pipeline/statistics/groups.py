"""The groups of images that are scored apart: sexes, age bands, views, and the crossings of two of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ATTRIBUTES = ("sex", "age", "view")
UNKNOWN = "unknown"
_NAMES = {"sex": {"F": "female", "M": "male"}, "view": {"L": "lateral"}}
_CROSSINGS = (("sex", "age"), ("sex", "view"), ("view", "age"))


@dataclass(frozen=True)
class Group:
    """Images that have one value of an attribute, or one of each of two."""

    by: str
    name: str
    members: NDArray[np.bool_]


def groups_of(rows: pd.DataFrame, age_bands: Sequence[int]) -> list[Group]:
    """Return the groups of each attribute, then those of each two attributes; empty ones are left out.

    An attribute that is unknown for all images makes no groups; one that is equal for all is not crossed.

    Parameters
    ----------
    rows : DataFrame
        Columns `sex`, `age`, `view`, as far as there are any.
    age_bands : sequence of int
        Years at which a new band begins, as 18, 40 for 0-17, 18-39 and 40+.
    """
    values = {by: _values(rows, by, age_bands) for by in ATTRIBUTES if by in rows.columns}
    values = {by: column for by, column in values.items() if (column != UNKNOWN).any()}
    groups = [Group(by, str(name), column == name) for by, column in values.items() for name in _sorted(column)]
    for pair in _CROSSINGS:
        if all(by in values and len(np.unique(values[by])) > 1 for by in pair):
            first, second = (values[by] for by in pair)
            crossed = [
                Group(" x ".join(pair), f"{a}, {b}", (first == a) & (second == b))
                for a in _sorted(first)
                for b in _sorted(second)
            ]
            groups += [group for group in crossed if group.members.any()]
    return groups


def _values(rows: pd.DataFrame, by: str, age_bands: Sequence[int]) -> NDArray[np.str_]:
    if by != "age":
        words = rows[by].astype("object").where(rows[by].notna(), "").astype(str)
        return np.array([_NAMES[by].get(word, word) or UNKNOWN for word in words], np.str_)
    age = rows["age"].astype("Float64").to_numpy(np.float64, na_value=np.nan)
    starts = [0, *age_bands]
    names = [f"{low}-{high - 1}" for low, high in pairwise(starts)] + [f"{starts[-1]}+", UNKNOWN]
    band = np.searchsorted(np.array(age_bands), age, side="right")
    return np.array(names)[np.where(np.isnan(age), len(names) - 1, band)]


def _sorted(column: NDArray[np.str_]) -> list[str]:
    """Order age bands by age, words by the alphabet, `unknown` last."""

    def rank(name: str) -> tuple[bool, int, str]:
        years = name.split("-")[0].rstrip("+")
        return name == UNKNOWN, int(years) if years.isdecimal() else 0, name

    return sorted({str(name) for name in column}, key=rank)
