"""What every adapter must give back, whatever the data set."""

from pathlib import Path

import pandas as pd

from pipeline.datasets import Catalogue
from pipeline.datasets.boxes import COLUMNS as BOX_COLUMNS
from pipeline.datasets.boxes import is_box
from pipeline.findings import in_order
from pipeline.manifest import ALLOWED, COLUMNS, check_manifest, findings_of


def check_catalogue(catalogue: Catalogue, raw: Path) -> None:
    """Check a catalogue against the manifest's schema and the folder."""
    rows, boxes = catalogue.rows, catalogue.boxes
    manifest = rows.assign(sha256="0", phash="0")
    check_manifest(manifest, "catalogue")
    assert list(rows.columns[: len(COLUMNS) - 2]) == [name for name in COLUMNS if name not in ("sha256", "phash")]
    assert findings_of(rows) == in_order(findings_of(rows))
    assert all(str(rows[name].dtype) == "Int8" for name in findings_of(rows))
    assert all(set(rows[name]) <= set(words) for name, words in ALLOWED.items())
    assert rows["path"].is_unique
    assert all((raw / path).is_file() for path in rows["path"])
    assert not set(rows["path"]) & {item.path for item in catalogue.refused}
    assert {item.path for item in catalogue.suspicious} <= set(rows["path"])
    assert list(boxes.columns) == list(BOX_COLUMNS)
    assert set(boxes["image_id"]) <= set(rows["image_id"])
    assert set(boxes["finding"]) <= set(findings_of(rows))
    assert all(str(boxes[name].dtype) == "float64" for name in BOX_COLUMNS[2:])
    assert is_box(boxes).all()
    assert all(count > 0 for count in (catalogue.left_out + catalogue.notes).values())


def labels(catalogue: Catalogue, image: str) -> dict[str, float | None]:
    """Return the findings of one image; None is unknown."""
    row = catalogue.rows.set_index("image_id").loc[image]
    return {name: None if pd.isna(row[name]) else int(row[name]) for name in findings_of(catalogue.rows)}


def codes(catalogue: Catalogue) -> dict[str, str]:
    """Return the reason code of everything refused."""
    return {item.path: item.code.value for item in catalogue.refused}
