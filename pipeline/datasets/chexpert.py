"""CheXpert-v1.0-small, as Kaggle serves it (ashery/chexpert).

Irvin et al., "CheXpert: a large chest radiograph dataset with uncertainty labels and expert comparison", AAAI 2019.
A label is 1 (present), 0 (absent), -1 (the report is uncertain) or nothing (the report does not mention it).
"""

import re
from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.datasets import Catalogue
from pipeline.datasets.tables import ages, complete, one_row_each, only, sexes, single_table, views
from pipeline.datasets.tree import attach, by_key, list_files, shown
from pipeline.errors import UserError
from pipeline.findings import CHEXPERT, NO_FINDING
from pipeline.params import DatasetParams
from pipeline.quarantine import Reason, Refused, Suspicious

_TABLES = ("train.csv", "valid.csv")
_SPLITS = {"train": "train", "valid": "val"}
_FACTS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
# The tables write CheXpert-v1.0-small/ first, whatever the folder is called; the patient is the third part.
_PATH = re.compile(
    r"(?:^|/)((train|valid)/(patient\d{1,9})/study\d{1,9}/view\d{1,9}_(?:frontal|lateral)\.jpg)$", re.ASCII
)
_VALUES = {"1.0": 1.0, "0.0": 0.0, "-1.0": -1.0, "1": 1.0, "0": 0.0, "-1": -1.0, "": float("nan")}
_POLICIES = {"ignore": float("nan"), "zeros": 0.0, "ones": 1.0}


def read(raw: Path, params: DatasetParams) -> Catalogue:
    """Read train.csv and valid.csv and find their images.

    The official validation images, read by three radiologists, get the official split `val`.

    Raises
    ------
    UserError
        If a table is missing or differs from its copy, a column is missing, or a label or a parameter is unknown.
    """
    policies = _policies(params)
    left_out: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    refused: list[Refused] = []
    files = list_files(raw, left_out)
    pictures = [file for file in files if file.suffix.lower() in {".jpg", ".jpeg"}]
    images = by_key(raw, pictures, _key, left_out, refused)
    tables = [_rows(*_table(raw, files, name, refused), params, policies, notes) for name in _TABLES]
    rows = pd.concat(tables, ignore_index=True)
    one_row_each(rows, "image_id", raw)
    rows = attach(rows, images, refused)
    says = rows["says"]
    suspicious = [
        Suspicious(path, Reason.LATERAL, f"the table says Frontal, and {word} (lateral) for the projection")
        for path, word in zip(rows["path"], says, strict=True)
        if word
    ]
    return Catalogue(complete(rows, list(CHEXPERT.values())), refused, suspicious, left_out, notes)


def _policies(params: DatasetParams) -> dict[str, str]:
    """Return the rule for -1 of each finding."""
    if unknown := sorted(set(params.uncertain_findings) - set(CHEXPERT.values())):
        raise UserError(
            f"dataset.uncertain_findings names {shown(unknown[0])!r}; allowed: {', '.join(CHEXPERT.values())}"
        )
    return {name: params.uncertain_findings.get(name, params.uncertain) for name in CHEXPERT.values()}


def _key(file: PurePosixPath) -> str:
    match = _PATH.search(str(file))
    return match[1] if match else str(file)


def _table(
    raw: Path, files: list[PurePosixPath], name: str, refused: list[Refused]
) -> tuple[pd.DataFrame, pd.DataFrame, Path]:
    """Return a table, the parts of its paths (image, split, patient), and where it lies."""
    found = [file for file in files if file.name.lower() == name]
    if not found:
        raise UserError(f"{raw}: no {name}; is it the archive CheXpert-v1.0-small?")
    table = single_table(raw, found, (*_FACTS, NO_FINDING, *CHEXPERT))
    places = table["Path"].str.extract(_PATH)
    odd = places[0].isna()
    reason = "Path does not end in train|valid/patientN/studyN/…"
    refused += [Refused(f"{found[0]}: line {int(line) + 2}", Reason.BAD_ROW, reason) for line in table.index[odd]]
    return table[~odd], places[~odd], raw / found[0]


def _rows(
    table: pd.DataFrame,
    places: pd.DataFrame,
    path: Path,
    params: DatasetParams,
    policies: dict[str, str],
    notes: Counter[str],
) -> pd.DataFrame:
    view, says = _views(table, path, notes)
    sex = only(table, "Sex", {word: word for word in ("Female", "Male", "Unknown", "")}, path)
    rows = pd.DataFrame(
        {
            "image_id": places[0],
            "patient_id": places[2],
            "view": view,
            "says": says,
            "sex": sexes(sex, notes),
            "age": ages(table["Age"], notes, least=1),  # the three ages of 0 stand for unknown
            "official_split": places[1].map(_SPLITS),
        }
    )
    return rows.assign(**_labels(table, path, params, policies, notes))


def _views(table: pd.DataFrame, path: Path, notes: Counter[str]) -> tuple[pd.Series, pd.Series]:
    """Return the view, and what a Frontal row says of its projection if that is a lateral one (LL, RL)."""
    lateral = only(table, "Frontal/Lateral", {"Frontal": False, "Lateral": True}, path).astype("bool")
    projection = only(table, "AP/PA", {word: word for word in ("AP", "PA", "LL", "RL", "")}, path).astype("str")
    against = ~lateral & projection.isin(("LL", "RL"))
    view = views(projection, notes).mask(lateral, "L").mask(against, "")
    return view, projection.where(against, "")


def _labels(
    table: pd.DataFrame, path: Path, params: DatasetParams, policies: dict[str, str], notes: Counter[str]
) -> dict[str, pd.Series]:
    labels = {}
    for column, finding in CHEXPERT.items():
        value = only(table, column, _VALUES, path).astype("float64")
        uncertain, blank = value == -1, value.isna()
        if uncertain.any():
            notes[f"label -1 (uncertain) read by the rule {policies[finding]}"] += int(uncertain.sum())
        if blank.any():
            notes[f"label left blank (not mentioned) read as {params.blank}"] += int(blank.sum())
        value = value.mask(uncertain, _POLICIES[policies[finding]])
        labels[finding] = value.mask(blank, 0.0) if params.blank == "zeros" else value
    none = only(table, NO_FINDING, _VALUES, path).astype("float64") == 1
    # Irvin et al., section 3: No Finding means that nothing but support devices is positive or uncertain.
    positive = pd.DataFrame(labels).drop(columns="Support_Devices").eq(1).any(axis=1)
    if both := int((none & positive).sum()):
        notes["No Finding and a finding in one row: both kept"] += both
    return labels
