"""A new data version for `cxr retrain`: the present data set and the labelled films of a prediction log."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import sqlalchemy as sa

from pipeline.datasets.tree import safe_path
from pipeline.errors import UserError
from pipeline.files import atomic_open, sha256_text
from pipeline.log_store.opening import open_store
from pipeline.log_store.reading import models_of
from pipeline.log_store.tables import LABELS, PREDICTIONS, WHOLE
from pipeline.manifest import SPLITS, findings_of, read_manifest, read_table
from pipeline.params import SplitParams

TABLE = "labels.csv"
"""The label table of the new version, below its raw folder, as the adapter `folder` reads it."""
_FACTS = ("view", "sex", "age")


@dataclass(frozen=True)
class Version:
    """What a data version is made of.

    Attributes
    ----------
    old, new : int
        Images of the present data set, and of the log.
    patients : int
        Patients of the new images.
    test : int
        New images that went to the test split.
    sha256 : str
        Of its label table.
    """

    old: int
    new: int
    patients: int
    test: int
    sha256: str


def labelled_films(log: str, table: Path, images: Path, findings: list[str]) -> pd.DataFrame:
    """Join the log's truths with the user's own table of which film each request was.

    Parameters
    ----------
    log : str
        The prediction log, which knows no film and no patient.
    table : Path
        CSV of `request_id`, `file` (below `images`), `patient`, perhaps `image` (default 0), `view`, `sex`, `age`.
    images : Path
        The folder of the films.
    findings : list of str
        Of the present data set; what a truth does not say is unknown.

    Returns
    -------
    DataFrame
        `file, patient, view, sex, age`, and a column of 1, 0 or '' for each finding; a row a film.

    Raises
    ------
    UserError
        If a column or a file is missing, or no row has a truth.
    """
    rows = _read(table)
    truths = _truths(log)
    found = []
    for row in rows.to_dict("records"):
        truth = truths.get((row["request_id"], int(row["image"])))
        if truth is None:
            continue
        path = images / safe_path(row["file"], f"{table}: file")
        if not path.is_file():
            raise UserError(f"{path} is missing, and {table} names it: give the films' folder with --images")
        known = {name: {1: "1", 0: "0"}.get(truth.get(name, -1), "") for name in findings}
        found.append({name: row.get(name, "") for name in ("file", "patient", *_FACTS)} | known)
    if not found:
        raise UserError(f"none of the {len(rows):,} rows of {table} has a truth in the log: add it with `cxr labels`")
    made = pd.DataFrame(found)
    if (made[findings] == "").all(axis=None):
        raise UserError(f"the truths in the log are of none of the data set's findings: {', '.join(findings)}")
    return made


def write_version(
    films: pd.DataFrame, images: Path, manifest: Path, splits: Path, raw: Path, out: Path, params: SplitParams
) -> Version:
    """Write a raw folder that the adapter `folder` reads: the present images, and the new ones.

    Every present image keeps its side of the test split, so that what the champion was judged on stays unseen; a new
    film of a patient who is known goes where he is, a new patient to test with `split.test`'s chance. Images are linked
    where the disk allows.

    Parameters
    ----------
    films : DataFrame
        Of `labelled_films`.
    images, raw : Path
        Folders of the new films, and of the present ones.
    manifest, splits : Path
        Of the present data set.
    out : Path
        The new raw folder; must not exist.
    params : SplitParams
        Share of the test split, and the seed.
    """
    table = read_manifest(manifest)
    side = read_table(splits).set_index("image_id")["split"]
    findings = findings_of(table)
    old = table[table["image_id"].isin(set(side.index))]
    rows = old[["patient_id", *_FACTS]].rename(columns={"patient_id": "patient"}).astype(object)
    rows.insert(0, "image", [f"old/{path}" for path in old["path"]])
    rows["split"] = side.loc[old["image_id"]].to_numpy()
    rows[findings] = old[findings].astype(object)
    known = dict(zip(rows["patient"].astype(str), rows["split"], strict=True))
    new = films.rename(columns={"file": "image"}).assign(image=[f"new/{name}" for name in films["file"]])
    new["split"] = sides_of(new["patient"], known, params)
    columns = ["image", "patient", "split", *_FACTS, *findings]
    both = pd.concat([rows[columns], new[columns]], ignore_index=True)
    for name in findings:
        both[name] = [_cell(value) for value in both[name]]
    _copy([(raw / path, out / "old" / path) for path in old["path"]])
    _copy([(images / name, out / "new" / name) for name in films["file"]])
    text = both.to_csv(index=False, lineterminator="\n")
    with atomic_open(out / TABLE) as handle:
        handle.write(text)
    people, test = films["patient"].nunique(), int((new["split"] == "test").sum())
    return Version(len(rows), len(new), people, test, sha256_text(text))


def sides_of(patients: pd.Series, known: dict[str, str], params: SplitParams) -> list[str]:
    """Return each image's split: a known patient's own, a new one's by chance, whole patients."""
    names = sorted(set(patients.astype(str)) - known.keys())
    drawn = np.random.default_rng(params.seed).permutation(len(names))
    n_test = max(1, round(params.test * len(names))) if len(names) > 1 else 0
    chosen = {names[k]: SPLITS[2] if place < n_test else SPLITS[0] for place, k in enumerate(drawn)}
    return [{**chosen, **known}[str(patient)] for patient in patients]


def _read(path: Path) -> pd.DataFrame:
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: a CSV file of request_id, file and patient is needed") from None
    except ValueError as error:
        raise UserError(f"{path} is no CSV file in UTF-8: {str(error)[:100]}") from None
    for name in ("request_id", "file", "patient"):
        if name not in rows.columns:
            raise UserError(f"{path} has no column {name}; it has {', '.join(map(str, rows.columns))[:200]}")
    if (rows["patient"] == "").any():
        raise UserError(f"{path}: a row has no patient; films of one person must not get on two sides of the split")
    if (twice := rows["file"].duplicated()).any():
        raise UserError(f"{path} names {rows.loc[twice, 'file'].iloc[0]} twice")
    return rows if "image" in rows.columns else rows.assign(image="0")


def _truths(log: str) -> dict[tuple[str, int], dict[str, int]]:
    """Return the newest truth of each image, by finding."""
    engine = open_store(log, create=False)
    try:
        findings = {number: names.findings for number, names in models_of(engine).items()}
        query = (
            sa.select(LABELS.c.request_id, LABELS.c.image, LABELS.c.truth, PREDICTIONS.c.model)
            .join(
                PREDICTIONS, (LABELS.c.request_id == PREDICTIONS.c.request_id) & (LABELS.c.image == PREDICTIONS.c.image)
            )
            .order_by(LABELS.c.id)
        )
        with engine.connect() as connection:
            return {
                (request, image): dict(zip(findings[model], np.frombuffer(truth, WHOLE).tolist(), strict=True))
                for request, image, truth, model in connection.execute(query)
            }
    finally:
        engine.dispose()


def _cell(value: object) -> str:
    return "" if value is None or value != value or value == "" else str(int(float(str(value))))


def _copy(pairs: list[tuple[Path, Path]]) -> None:
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another disk, or one without links
            shutil.copy2(source, target)
