"""Section: copies and leaks, counted, and the suspects that most deserve a look."""

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.reporting.examples import picture, read_ingested
from pipeline.reporting.page import Section
from pipeline.reporting.text import listed

_PAIRS = 6
_SIDE = 160  # pixels of a picture on the page, at most
_SPLITS = {"train": "training", "val": "validation", "test": "test"}
_DRAWN = ("near-duplicate", "near-copy")
_WORDS = {
    "unknown-image": "an image that the manifest does not hold",
    "changed-patient": "an image whose patient is another one in the manifest",
    "patient": "a patient on two sides of the split",
    "identical": "equal pixels on two sides of the split",
    "overlap": "equal pixels in another data set",
    "near-duplicate": "nearly the same picture on two sides of the split",
    "near-overlap": "nearly the same picture in another data set",
    "copy": "equal pixels under two names on one side",
    "near-copy": "nearly the same picture under two names on one side",
}
_SIMULATED = (
    " Drawn films are far more alike than real ones: what is nearly the same here are drawings of similar bodies, not "
    "copies."
)


def section(
    summary: dict[str, Any], suspects: pd.DataFrame, manifest: pd.DataFrame, raw: Path, *, simulated: bool
) -> Section:
    """Gather what the section shows.

    Parameters
    ----------
    summary : dict
        `audit.json`.
    suspects : DataFrame
        `audit.csv`, strings; the worst first.
    manifest : DataFrame
        For the files of the pictures.
    raw : Path
        What its paths are relative to.
    simulated : bool
        Whether the films were drawn by the simulator.

    Returns
    -------
    Section
        `rows` (words, severity, count), `compared` (a sentence) and `pairs` (caption, pictures). A test image is
        not drawn here: whoever reads the page may still change the model, and has then seen what it is tested on.
    """
    rows = [(_WORDS[kind], "warning" if _is_warning(kind) else "error", n) for kind, n in summary["kinds"].items()]
    known = manifest.set_index("image_id")[["path", "sha256"]]
    drawn = suspects[suspects["kind"].isin(_DRAWN)].head(_PAIRS)
    content = {
        "rows": rows,
        "compared": compared(summary["compared"]) + (_SIMULATED if simulated else ""),
        "pairs": [_pair(row, known, raw) for _, row in drawn.iterrows()],
        "more": int(suspects["kind"].isin(_DRAWN).sum()) - len(drawn),
    }
    return Section("audit", "Audit of the data", content)


def compared(counts: dict[str, Any]) -> str:
    """Say what was compared, and how."""
    text = (
        f"{counts['images']:,} images of {counts['patients']:,} patients were compared. Nearly the same: perceptual "
        f"hashes that differ in at most {counts['distance']} of 64 bits, and a correlation of {counts['similarity']:g} "
        "or more between the aligned thumbnails."
    )
    if lost := counts["candidates"] - counts["thumbnails"]:
        text += f" {lost:,} images had no thumbnail and were judged by their hash alone."
    return text + (f" Other sets: {listed(counts['against'])}." if counts["against"] else "")


def _is_warning(kind: str) -> bool:
    return kind.startswith("near-") or kind == "copy"


def _pair(row: "pd.Series[Any]", known: pd.DataFrame, raw: Path) -> dict[str, Any]:
    sides = [(str(row[f"image_{side}"]), str(row[f"split_{side}"])) for side in "ab"]
    where = " and ".join(dict.fromkeys(_SPLITS[split] for _, split in sides))
    alike = f"correlation {float(row['similarity']):.3f}" if row["similarity"] else "not compared"
    pictures = [_side(image, split, known, raw) for image, split in sides]
    return {"caption": f"{where}: {row['distance']} bits, {alike}; {_patients(row)}", "pictures": pictures}


def _patients(row: "pd.Series[Any]") -> str:
    return "the same patient" if str(row["detail"]).endswith("the same patient") else "different patients"


def _side(image: str, split: str, known: pd.DataFrame, raw: Path) -> dict[str, Any]:
    title = f"{_SPLITS[split].capitalize()} image"
    if split == "test":
        return {"title": f"{title}: not shown", "uri": ""}
    pixels = read_ingested(raw / str(known.at[image, "path"]), str(known.at[image, "sha256"]))
    return {"title": title, **picture(pixels, _SIDE)}
