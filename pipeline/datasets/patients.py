"""Whose film it is where no table says so: a pattern in the file's name, or nobody knows."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from pipeline.errors import UserError
from pipeline.progress import warn

_UNKNOWN = "no patient is known: every image counts as its own patient"


def every_image_its_own(rows: pd.DataFrame, notes: Counter[str]) -> pd.DataFrame:
    """Make each image its own patient, and say loudly what that means."""
    notes[_UNKNOWN] += len(rows)
    warn(
        f"the source names no patients: each of the {len(rows)} images counts as its own, so films of one person can "
        "stand in training and test, and every score may be too high"
    )
    return rows.assign(patient_id=rows["image_id"])


def patients_in(names: Sequence[str], pattern: str) -> list[str]:
    """Return what the one group of a pattern finds in each name, '' where it finds nothing.

    Arrow's RE2 does the work: its time grows with the length of the name alone, whatever the pattern, where Python's
    `re` can take years over a name of 40 letters (https://github.com/google/re2/wiki/WhyRE2).

    Raises
    ------
    UserError
        If RE2 does not know the pattern (it has no look-ahead and no back-references).
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = rf"(?s)^.*?(?:{pattern}).*$"
    texts = pa.array(list(names), pa.string())
    try:
        found = pc.match_substring_regex(texts, whole)
        taken = pc.replace_substring_regex(texts, whole, r"\1")
    except pa.ArrowInvalid as error:
        raise UserError(f"dataset.patient_pattern is {pattern!r}, which RE2 cannot use: {error}") from None
    return [str(text) if hit else "" for text, hit in zip(taken.to_pylist(), found.to_pylist(), strict=True)]
