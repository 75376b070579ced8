"""Your own films: a CSV with one row an image (`dataset.table`), or one folder for each class."""

import re
from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.datasets import Catalogue
from pipeline.datasets.patients import every_image_its_own, patients_in
from pipeline.datasets.tables import complete, split_folder
from pipeline.datasets.tree import IMAGE_SUFFIXES, list_files, shown
from pipeline.errors import UserError
from pipeline.findings import canonical
from pipeline.manifest import COLUMNS
from pipeline.params import DatasetParams
from pipeline.progress import note
from pipeline.quarantine import Reason, Refused

MAX_CLASSES = 100
"""More folders than this are patients or studies, not classes."""
NEGATIVE = frozenset({"normal", "no_finding", "no_findings", "negative", "healthy", "control"})
"""Names of the class (in any capitals) that means that no finding is present."""

# It becomes a column, a name in MLflow and a word in the report.
_NAME = re.compile(r"\w[\w.-]{0,79}")
_RESERVED = {*COLUMNS, "split", "row", "shard"}


def read(raw: Path, params: DatasetParams) -> Catalogue:
    """Read the table that `params` names, or else take each image's class from its folder.

    Raises
    ------
    UserError
        If the table or the folders are not what `params` says, or the pattern for patients cannot be used.
    """
    left_out: Counter[str] = Counter()
    files = list_files(raw, left_out)
    if params.table:
        from pipeline.datasets.folder_table import read_rows

        catalogue = read_rows(raw, files, params)
    else:
        catalogue = _read_tree(raw, [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES], params)
    catalogue.left_out += left_out
    return catalogue


def finding_names(names: list[str], origin: str) -> dict[str, str]:
    """Return the vocabulary's name of each finding that a user calls by another.

    Raises
    ------
    UserError
        If one cannot be a column of the manifest, or two mean the same finding.
    """
    found = {name: canonical(name) for name in names}
    for name, finding in found.items():
        if not _NAME.fullmatch(finding) or finding.casefold() in _RESERVED:
            raise UserError(f"{origin}: {shown(name)!r} cannot name a finding; letters, digits, _ . - are allowed")
    same = Counter(finding.casefold() for finding in found.values())
    if twice := [name for name, finding in found.items() if same[finding.casefold()] > 1]:
        raise UserError(f"{origin}: {twice[0]!r} and {twice[1]!r} mean the same finding; make them one")
    return found


def with_patients(
    rows: pd.DataFrame, params: DatasetParams, refused: list[Refused], notes: Counter[str]
) -> pd.DataFrame:
    """Add `patient_id` from the file names by `params.patient_pattern`; without a pattern nobody knows."""
    if not params.patient_pattern:
        return every_image_its_own(rows, notes)
    names = [PurePosixPath(path).name for path in rows["path"]]
    rows = rows.assign(patient_id=pd.Series(patients_in(names, params.patient_pattern), rows.index, dtype="str"))
    return drop_unknown(rows, refused, "dataset.patient_pattern finds no patient in its name")


def drop_unknown(rows: pd.DataFrame, refused: list[Refused], reason: str) -> pd.DataFrame:
    """Refuse the rows without a patient."""
    unknown = rows["patient_id"] == ""
    refused += [Refused(path, Reason.NO_PATIENT, reason) for path in rows.loc[unknown, "path"]]
    return rows[~unknown].reset_index(drop=True)


def _read_tree(raw: Path, images: list[PurePosixPath], params: DatasetParams) -> Catalogue:
    refused: list[Refused] = []
    notes: Counter[str] = Counter()
    placed = {file: place for file in images if (place := _place(file))}
    refused += [
        Refused(str(file), Reason.IMAGE_WITHOUT_LABEL, "not in the folder of a class")
        for file in images
        if file not in placed
    ]
    classes = _classes(raw, placed)
    rows = pd.DataFrame(
        {
            "image_id": [str(file.relative_to(root)) for file, (root, _, _) in placed.items()],
            "path": [str(file) for file in placed],
            "official_split": [split for _, split, _ in placed.values()],
        }
    )
    for name, finding in classes.items():
        rows[finding] = [int(own == name) for _, _, own in placed.values()]
    rows = with_patients(rows, params, refused, notes)
    return Catalogue(complete(rows, list(classes.values())), refused, notes=notes)


def _place(file: PurePosixPath) -> tuple[PurePosixPath, str, str] | None:
    """Return the root, the split ('' for none) and the class of `[root/][split/]class/name`."""
    if len(file.parts) < 2 or split_folder(file.parts[-2]):
        return None
    split = split_folder(file.parts[-3]) if len(file.parts) > 2 else ""
    return file.parents[2 if split else 1], split, file.parts[-2]


def _classes(raw: Path, placed: dict[PurePosixPath, tuple[PurePosixPath, str, str]]) -> dict[str, str]:
    """Return the finding of each class folder that is no negative one."""
    roots = sorted({str(root) for root, _, _ in placed.values()})
    if not roots:
        raise UserError(f"{raw}: no image in a folder of its class; name the label table in dataset.table")
    if len(roots) > 1:
        raise UserError(
            f"{raw}: folders of classes lie in {roots[0]} and in {roots[1]}; keep one tree, with its classes"
        )
    names = sorted({own for _, _, own in placed.values()})
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UserError(
            f"{raw}: {len(names)} folders with images; a folder for each of 2 to {MAX_CLASSES} classes is needed"
        )
    negative = [name for name in names if canonical(name).casefold() in NEGATIVE]
    classes = finding_names([name for name in names if name not in negative], str(raw))
    if not classes:
        raise UserError(f"{raw}: the classes {', '.join(names)} all mean that nothing was found; one finding is needed")
    note(f"findings: {', '.join(classes.values())}; negative: {', '.join(negative) or 'the other classes'}")
    return classes
