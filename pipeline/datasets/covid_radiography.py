"""COVID-19 Radiography Database, as Kaggle serves it (tawsifurrahman/covid19-radiography-database).

Chowdhury et al., IEEE Access 2020;8:132665; Rahman et al., Computers in Biology and Medicine 2021;132:104319.
"""

from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.datasets import Catalogue
from pipeline.datasets.patients import every_image_its_own
from pipeline.datasets.tables import complete
from pipeline.datasets.tree import by_key, list_files
from pipeline.errors import UserError
from pipeline.findings import COVID_RADIOGRAPHY
from pipeline.params import DatasetParams
from pipeline.progress import warn
from pipeline.quarantine import Reason, Refused

_SUFFIXES = {".png", ".jpg", ".jpeg"}
_NORMAL = "Normal"
# Folders of the present version, and those of its first ones.
_CLASSES = {name.lower(): name for name in (*COVID_RADIOGRAPHY, _NORMAL)} | {"covid-19": "COVID"}
_SOURCES = (
    "in this set the class is the source of the film: Lung_Opacity is from RSNA, Viral Pneumonia from the paediatric "
    "pneumonia set, Normal from both, COVID from elsewhere; a model can tell the sources apart instead of the "
    "findings, and the set is no external test for a model that has seen RSNA, NIH or the pneumonia set (docs/datasets)"
)


def read(raw: Path, _params: DatasetParams) -> Catalogue:
    """Read the class folders, with their level `images` or, as in the first versions, without it.

    A class says less than a finding: what another class leaves open is unknown. A film of the class COVID may also
    show an opacity; one of the class Lung_Opacity is by its description "non-COVID".

    Raises
    ------
    UserError
        If the class folders are not there.
    """
    left_out: Counter[str] = Counter()
    refused: list[Refused] = []
    pictures = [file for file in list_files(raw, left_out) if file.suffix.lower() in _SUFFIXES]
    classes: dict[PurePosixPath, str] = {}
    for file in pictures:
        if "masks" in file.parts[:-1]:
            left_out["lung mask"] += 1
        elif name := _class(file):
            classes[file] = name
        else:
            refused.append(Refused(str(file), Reason.IMAGE_WITHOUT_LABEL, "not in a class folder"))
    missing = sorted({*COVID_RADIOGRAPHY, _NORMAL} - set(classes.values()) - {"Lung_Opacity"})  # came in version 4
    if missing:
        raise UserError(f"{raw}: no images in a folder {missing[0]!r}; is it the COVID-19 Radiography Database?")
    images = by_key(raw, list(classes), lambda file: f"{classes[file]}/{file.name}", left_out, refused)
    rows = pd.DataFrame({"image_id": list(images), "path": [str(file) for file in images.values()]})
    labels = pd.DataFrame([_labels(classes[file]) for file in images.values()])
    notes: Counter[str] = Counter()
    rows = every_image_its_own(rows.join(labels), notes)
    warn(_SOURCES)
    notes["the class is the source of the film"] = len(rows)
    return Catalogue(complete(rows, list(COVID_RADIOGRAPHY.values())), refused, left_out=left_out, notes=notes)


def _class(file: PurePosixPath) -> str | None:
    """Return the class of `<class>/images/<name>` or `<class>/<name>`."""
    above = [part for part in file.parts[:-1] if part.lower() != "images"]
    return _CLASSES.get(above[-1].lower()) if above else None


def _labels(name: str) -> dict[str, float]:
    """Return 1 for the class's own finding, 0 for what it excludes, NaN for what it leaves open."""
    if name == _NORMAL:
        return dict.fromkeys(COVID_RADIOGRAPHY.values(), 0.0)
    unknown = dict.fromkeys(COVID_RADIOGRAPHY.values(), float("nan"))
    # The other two classes are described as non-COVID: RSNA's films and the paediatric ones are older than the disease.
    return unknown | {COVID_RADIOGRAPHY["COVID"]: 0.0} | {COVID_RADIOGRAPHY[name]: 1.0}
