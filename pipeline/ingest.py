"""Stage `ingest`: from a data set's own layout to the manifest; every file is opened, decoded and hashed."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.datasets import Catalogue, read_catalogue
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.images import ImageError, perceptual_hash, pixel_sha256, read_image
from pipeline.manifest import findings_of, write_manifest
from pipeline.parallel import run_all
from pipeline.params import IngestParams, Params
from pipeline.progress import note, warn
from pipeline.quarantine import Reason, Refused, write_quarantine


@dataclass(frozen=True)
class Checked:
    """What decoding a file told: its size in pixels and hashes, or why it is refused."""

    width: int = 0
    height: int = 0
    sha256: str = ""
    phash: str = ""
    code: Reason | None = None
    reason: str = ""


def check_file(path: Path, params: IngestParams) -> Checked:
    """Open, decode and hash one image file.

    Returns
    -------
    Checked
        `code` is None when the file is usable. An image whose pixels are all equal holds nothing and is refused.
    """
    try:
        image = read_image(path, params.max_pixels)
    except ImageError as error:
        return Checked(code=error.code, reason=str(error))
    height, width = image.shape
    if min(height, width) < params.min_side:
        reason = f"{width}x{height} is smaller than the required {params.min_side} pixels a side"
        return Checked(code=Reason.TINY, reason=reason)
    if image.min() == image.max():
        return Checked(code=Reason.BLANK, reason="all pixels are equal")
    return Checked(width, height, pixel_sha256(image), perceptual_hash(image))


def build_manifest(
    catalogue: Catalogue, raw: Path, params: IngestParams, workers: int | None = None
) -> tuple[pd.DataFrame, list[Refused]]:
    """Check every file that the adapter found.

    Returns
    -------
    manifest : DataFrame
        The usable images, every column of `pipeline.manifest.COLUMNS`.
    refused : list of Refused
        All that is kept out, the adapter's refusals included.
    """
    rows = catalogue.rows
    paths = [raw / path for path in rows["path"]]
    check = partial(check_file, params=params)
    checked = list(run_all(check, paths, "checking files", workers))
    usable = pd.Series([item.code is None for item in checked], index=rows.index, dtype=bool)
    refused = catalogue.refused + [
        Refused(path, item.code, item.reason) for path, item in zip(rows["path"], checked, strict=True) if item.code
    ]
    manifest = rows.assign(
        followup=rows["followup"].astype("Int64"),
        width=_or_else(rows["width"], [item.width for item in checked]),
        height=_or_else(rows["height"], [item.height for item in checked]),
        sha256=[item.sha256 for item in checked],
        phash=[item.phash for item in checked],
    )
    return manifest[usable], refused


def _or_else(column: pd.Series, values: list[int]) -> pd.Series:
    """Fill what the source does not say with what the file says."""
    return column.where(column.notna(), pd.Series(values, index=column.index)).astype("Int64")


def summarise(manifest: pd.DataFrame, catalogue: Catalogue, refused: list[Refused]) -> dict[str, Any]:
    """Count what came in, what was kept out and why, and each finding."""
    reasons = pd.Series([item.reason for item in refused], dtype="str").value_counts()
    findings = {}
    for name in findings_of(manifest):
        column = manifest[name]
        findings[name] = {
            "positive": int((column == 1).sum()),
            "negative": int((column == 0).sum()),
            "unknown": int(column.isna().sum()),
        }
    return {
        "images": len(manifest),
        "patients": int(manifest["patient_id"].nunique()),
        "quarantined": len(refused),
        "quarantine_reasons": {str(reason): int(count) for reason, count in reasons.items()},
        "left_out": dict(catalogue.left_out),
        "notes": dict(catalogue.notes),
        "findings": findings,
    }


def ingest(raw: Path, out: Path, quarantine: Path, params: Params, workers: int | None = None) -> None:
    """Write the manifest, the quarantine table and a summary beside it (`ingest.json`).

    Parameters
    ----------
    raw : Path
        What `download` made.
    out : Path
        The manifest.
    quarantine : Path
        CSV with `path, code, action, reason`, one row per refused or suspicious file or row.
    params : Params
        Sections `dataset` and `ingest`.
    workers : int or None
        Processes; the result is the same for any number.

    Raises
    ------
    UserError
        If the folder is missing, has another layout, or holds no usable image.
    """
    if not raw.is_dir():
        raise UserError(f"{raw} is not a folder; run `cxr download` (or `dvc repro`) first")
    catalogue = read_catalogue(raw, params.dataset)
    manifest, refused = build_manifest(catalogue, raw, params.ingest, workers)
    summary = summarise(manifest, catalogue, refused)
    write_quarantine(quarantine, [*refused, *catalogue.suspicious])
    write_json(quarantine.with_name("ingest.json"), summary)
    if manifest.empty:
        raise UserError(f"{raw}: none of {len(refused)} files is usable; the reasons are in {quarantine}")
    write_manifest(manifest, out)
    if refused:
        warn(f"{len(refused)} files or rows are kept out; the reasons are in {quarantine}")
    note(f"{summary['images']} images of {summary['patients']} patients in {out}")
