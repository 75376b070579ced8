"""Paediatric pneumonia radiographs (Kermany, Zhang, Goldbaum 2018, Cell 172:1122), CC BY 4.0.

Kaggle: paultimothymooney/chest-xray-pneumonia. The archive holds a second copy of itself and a Mac's junk files.
"""

import re
from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.datasets import Catalogue
from pipeline.datasets.tables import complete
from pipeline.datasets.tree import list_files
from pipeline.errors import UserError
from pipeline.params import DatasetParams
from pipeline.quarantine import Reason, Refused

_SPLITS = ("train", "val", "test")
_LABELS = {"NORMAL": 0, "PNEUMONIA": 1}
_SUFFIXES = {".jpeg", ".jpg", ".png"}
# The numbers restart for virus and bacteria and between the folders, and nothing says whether person1 is the same
# child in both: taking them for one can only make the split safer. Normals: series prefix and study number.
_PATIENT = re.compile(r"^(?:(person\d+)_(?:virus|bacteria)_|((?:NORMAL2-)?IM-\d+)-)")


def read(raw: Path, _params: DatasetParams) -> Catalogue:
    """Read the folders train, val and test; the label is the folder, the patient is in the file's name.

    Raises
    ------
    UserError
        If the folders are not there, or stand there twice side by side.
    """
    left_out: Counter[str] = Counter()
    files = list_files(raw, left_out)
    root = _root(raw, files)
    rows: list[tuple[str, str, str, str, int]] = []
    refused: list[Refused] = []
    known: set[str] = set()
    for file in files:
        split, label, name = _place(file, root)
        if split is None:
            left_out["outside the three folders, such as the archive's second copy of itself"] += 1
        elif label is None or file.suffix.lower() not in _SUFFIXES:
            reason = "not an image in a folder NORMAL or PNEUMONIA"
            refused.append(Refused(str(file), Reason.IMAGE_WITHOUT_LABEL, reason))
        elif not (match := _PATIENT.match(name)):
            reason = "its name does not say the patient (person1_virus_6, IM-0001-0001 do)"
            refused.append(Refused(str(file), Reason.NO_PATIENT, reason))
        elif (image_id := f"{split}/{label}/{file.stem}") in known:
            reason = "a second file of the same name with another suffix"
            refused.append(Refused(str(file), Reason.CONFLICTING_NAME, reason))
        else:
            known.add(image_id)
            rows.append((image_id, str(file), match[1] or match[2], split, _LABELS[label]))
    return Catalogue(_table(rows), refused, left_out=left_out)


def _root(raw: Path, files: list[PurePosixPath]) -> PurePosixPath:
    """Find the shallowest folder that holds train/NORMAL and test/NORMAL; the archive's second copy lies deeper."""
    folders = {file.parent for file in files}
    roots = [folder.parent.parent for folder in folders if folder.parts[-2:] == ("train", "NORMAL")]
    roots = [root for root in roots if root / "test" / "NORMAL" in folders]
    roots.sort(key=lambda root: (len(root.parts), str(root)))
    if not roots:
        raise UserError(f"{raw}: no folders train/NORMAL and test/NORMAL; is it the chest-xray-pneumonia archive?")
    # Deeper inside the first is the copy that the archive brings along; beside it, nobody can say which is meant.
    beside = sorted(str(root) for root in roots[1:] if not root.is_relative_to(roots[0]))
    if beside:
        raise UserError(f"{raw}: the set lies there twice, in {roots[0]} and in {beside[0]}; remove one of them")
    return roots[0]


def _place(file: PurePosixPath, root: PurePosixPath) -> tuple[str | None, str | None, str]:
    """Return split, label and name; split is None outside the three folders."""
    if not file.is_relative_to(root):
        return None, None, file.name
    parts = file.relative_to(root).parts
    if parts[0] not in _SPLITS:
        return None, None, file.name
    label = parts[1] if len(parts) == 3 and parts[1] in _LABELS else None
    return parts[0], label, file.name


def _table(rows: list[tuple[str, str, str, str, int]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["image_id", "path", "patient_id", "official_split", "Pneumonia"])
    # Kermany 2018, "Images from children": anterior-posterior films of children of one to five years.
    return complete(table.assign(view="AP"), ["Pneumonia"])
