"""A manifest and a split for any folder of images, to measure `preprocess` without the stages before it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.images import pixel_sha256, read_image
from pipeline.manifest import COLUMNS, write_manifest


def write_tables(out: Path, raw: Path, files: Sequence[Path], rows: int) -> tuple[Path, Path]:
    """Write `manifest.csv` and `splits.csv` of `rows` training images.

    Parameters
    ----------
    out : Path
        Their folder.
    raw : Path
        The raw folder.
    files : sequence of Path
        Images below it; they are named again and again until there are `rows`.
    rows : int
        Number of rows.
    """
    known = [(path.relative_to(raw).as_posix(), pixel_sha256(read_image(path))) for path in files]
    chosen = [known[n % len(known)] for n in range(rows)]
    names = [f"{n:08d}.png" for n in range(rows)]
    table = pd.DataFrame(
        {"image_id": names, "path": [path for path, _ in chosen], "sha256": [sha for _, sha in chosen]}
    )
    table = table.assign(**dict.fromkeys(set(COLUMNS) - set(table.columns), ""), Mass=0)
    table["patient_id"] = names
    table[["age", "followup", "width", "height"]] = pd.NA
    write_manifest(table, out / "manifest.csv")
    table.assign(split="train")[["image_id", "patient_id", "split"]].to_csv(out / "splits.csv", index=False)
    return out / "manifest.csv", out / "splits.csv"
