"""View, sex and age from the headers of DICOM files; nothing else of a header is read."""

from collections import Counter
from pathlib import Path

import pandas as pd

from pipeline.datasets.tables import plausible, sexes, views
from pipeline.progress import track


def with_facts(rows: pd.DataFrame, raw: Path, notes: Counter[str]) -> pd.DataFrame:
    """Add `view`, `sex` and `age` from the header of each file in `path`.

    A file whose header cannot be read keeps its row with all three unknown: the next step decodes it and says why.
    Words that the manifest has none for are counted in `notes` by their class.
    """
    from pipeline.decoders.dicom import read_facts
    from pipeline.images import ImageError

    found = []
    for path in track(rows["path"], len(rows), "reading headers"):
        try:
            facts = read_facts(raw / path)
            found.append((facts.view, facts.sex, facts.age))
            notes.update(facts.unknown)
        except ImageError:
            notes["header cannot be read: view, sex and age unknown"] += 1
            found.append(("", "", float("nan")))
    view, sex, age = (list(column) for column in zip(*found, strict=True)) if found else ([], [], [])
    return rows.assign(
        view=views(pd.Series(view, rows.index, dtype="str"), notes),
        sex=sexes(pd.Series(sex, rows.index, dtype="str"), notes),
        age=pd.Series([plausible(years, notes) for years in age], rows.index, dtype="float64"),
    )
