"""Stage `ingest`: from a data set's own layout to the manifest; every file is opened, decoded and hashed."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.datasets import Catalogue, read_catalogue
from pipeline.errors import UserError
from pipeline.files import atomic_open, write_json
from pipeline.images import ImageError, perceptual_hash, pixel_sha256, read_film
from pipeline.manifest import findings_of, write_manifest
from pipeline.parallel import run_all
from pipeline.params import IngestParams, Params
from pipeline.progress import note, warn
from pipeline.quality import Notes, suspicions
from pipeline.quarantine import Reason, Refused, Suspicious, count_by_code, write_quarantine
from pipeline.thumbnails import NAME, SIDE, Pictures, thumbnail, write_thumbnails


@dataclass(frozen=True)
class Checked:
    """What decoding a file told: size in pixels, hashes and what looks wrong, or why it is refused."""

    width: int = 0
    height: int = 0
    sha256: str = ""
    phash: str = ""
    thumbnail: bytes = b""
    notes: Notes = ()
    code: Reason | None = None
    reason: str = ""


@dataclass(frozen=True)
class Ingested:
    """What goes into the tables.

    Attributes
    ----------
    manifest : DataFrame
        The usable images, every column of `pipeline.manifest.COLUMNS`.
    refused, suspicious : list
        What is kept out, and what stays in and looks wrong; the adapter's entries included.
    thumbnails : ndarray of shape (n_images, 16, 16), dtype=uint8
        In the order of the manifest.
    """

    manifest: pd.DataFrame
    refused: list[Refused]
    suspicious: list[Suspicious]
    thumbnails: Pictures


def check_file(path: Path, params: IngestParams) -> Checked:
    """Open, decode and hash one image file.

    Returns
    -------
    Checked
        `code` is None when the file is usable. An image whose pixels are all equal holds nothing and is refused.
    """
    try:
        film = read_film(path, params.max_pixels)
    except ImageError as error:
        return Checked(code=error.code, reason=str(error))
    image = film.pixels
    height, width = image.shape
    if min(height, width) < params.min_side:
        reason = f"{width}x{height} is smaller than the required {params.min_side} pixels a side"
        return Checked(code=Reason.TINY, reason=reason)
    if image.min() == image.max():
        return Checked(code=Reason.BLANK, reason="all pixels are equal")
    notes = (*film.notes, *suspicions(image))
    return Checked(width, height, pixel_sha256(image), perceptual_hash(image), thumbnail(image).tobytes(), notes)


def build_manifest(catalogue: Catalogue, raw: Path, params: IngestParams, workers: int | None = None) -> Ingested:
    """Check every file that the adapter found; `params.refuse` decides which suspicious ones stay."""
    rows = catalogue.rows
    paths = [raw / path for path in rows["path"]]
    check = partial(check_file, params=params)
    checked = list(run_all(check, paths, "checking files", workers, on_crash=_crashed))
    manifest = rows.assign(
        followup=rows["followup"].astype("Int64"),
        width=_or_else(rows["width"], [item.width for item in checked]),
        height=_or_else(rows["height"], [item.height for item in checked]),
        sha256=[item.sha256 for item in checked],
        phash=[item.phash for item in checked],
    )
    refused = catalogue.refused + [
        Refused(path, item.code, item.reason) for path, item in zip(rows["path"], checked, strict=True) if item.code
    ]
    usable = np.array([item.code is None for item in checked], dtype=bool)
    suspicious = catalogue.suspicious + _seen(rows[usable], [item for item in checked if item.code is None])
    suspicious += find_conflicts(manifest[usable])
    refused += [Refused(item.path, item.code, item.reason) for item in suspicious if item.code in params.refuse]
    out = {item.path for item in refused}
    usable &= ~rows["path"].isin(out).to_numpy(dtype=bool)
    pixels = np.frombuffer(b"".join(item.thumbnail for item, good in zip(checked, usable, strict=True) if good), "u1")
    kept = [item for item in suspicious if item.path not in out]
    return Ingested(manifest[usable], refused, kept, pixels.reshape(-1, SIDE, SIDE))


def _crashed(_: Path) -> Checked:
    """Refuse a file at which a decoder written in C took its whole process down."""
    return Checked(code=Reason.UNREADABLE, reason="the decoder crashed")


def find_conflicts(manifest: pd.DataFrame) -> list[Suspicious]:
    """Flag each image whose very pixels have another label under another name; unknown contradicts nothing."""
    findings = findings_of(manifest)
    twins = manifest[manifest["sha256"].duplicated(keep=False)]
    labels = twins[findings].astype("Float64").astype("float64").groupby(twins["sha256"])
    differ = labels.transform("max") > labels.transform("min")  # NaN, where nothing is known, is never greater
    entries = []
    for path, row in zip(twins["path"], differ.to_numpy(), strict=True):
        if row.any():
            names = ", ".join(name for name, odd in zip(findings, row, strict=True) if odd)
            text = f"another image of the same pixels has another label of {names}"
            entries.append(Suspicious(path, Reason.CONFLICTING_LABELS, text))
    return entries


def _seen(rows: pd.DataFrame, checked: list[Checked]) -> list[Suspicious]:
    """List what the pixels and the view position make suspicious, file by file."""
    entries = []
    for path, view, item in zip(rows["path"], rows["view"], checked, strict=True):
        if view == "L":
            entries.append(Suspicious(path, Reason.LATERAL, "the source calls it a lateral view"))
        for code, text in item.notes:
            if view != "L" or code not in (Reason.ROTATED, Reason.INVERTED):  # those compare with a frontal film
                entries.append(Suspicious(path, code, text))
    return entries


def _or_else(column: pd.Series, values: list[int]) -> pd.Series:
    """Fill what the source does not say with what the file says."""
    return column.where(column.notna(), pd.Series(values, index=column.index)).astype("Int64")


def summarise(found: Ingested, catalogue: Catalogue) -> dict[str, Any]:
    """Count what came in, what was kept out or looks wrong and why, and each finding."""
    manifest = found.manifest
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
        "quarantined": len(found.refused),
        "quarantine_reasons": count_by_code(found.refused),
        "suspicious": len({item.path for item in found.suspicious}),
        "suspicious_reasons": count_by_code(found.suspicious),
        "left_out": dict(catalogue.left_out),
        "notes": dict(catalogue.notes),
        "findings": findings,
    }


def ingest(
    raw: Path,
    out: Path,
    quarantine: Path,
    params: Params,
    workers: int | None = None,
    boxes: Path | None = None,
    thumbnails: Path | None = None,
) -> None:
    """Write the manifest, boxes, thumbnails, the quarantine table and a summary beside it (`ingest.json`).

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
    boxes : Path or None
        CSV with the adapter's boxes, perhaps only a header; None: `boxes.csv` beside the manifest.
    thumbnails : Path or None
        See `pipeline.thumbnails`; None: `thumbnails.npy` beside the manifest.

    Raises
    ------
    UserError
        If the folder is missing, has another layout, or holds no usable image.
    """
    if not raw.is_dir():
        raise UserError(f"{raw} is not a folder; run `cxr download` (or `dvc repro`) first")
    catalogue = read_catalogue(raw, params.dataset)
    found = build_manifest(catalogue, raw, params.ingest, workers)
    summary = summarise(found, catalogue)
    write_quarantine(quarantine, [*found.refused, *found.suspicious])
    write_json(quarantine.with_name("ingest.json"), summary)
    if found.manifest.empty:
        raise UserError(f"{raw}: none of {len(found.refused)} files is usable; the reasons are in {quarantine}")
    write_manifest(found.manifest, out)
    _write_boxes(boxes or out.with_name("boxes.csv"), catalogue.boxes, found.manifest)
    write_thumbnails(thumbnails or out.with_name(NAME), found.manifest["sha256"], found.thumbnails)
    if found.refused:
        warn(f"{len(found.refused)} files or rows are kept out; the reasons are in {quarantine}")
    if found.suspicious:
        warn(f"{summary['suspicious']} files stay in and look suspicious; see {quarantine}")
    note(f"{summary['images']} images of {summary['patients']} patients in {out}")


def _write_boxes(path: Path, boxes: pd.DataFrame, manifest: pd.DataFrame) -> None:
    usable = boxes[boxes["image_id"].isin(set(manifest["image_id"]))]
    with atomic_open(path) as handle:
        usable.to_csv(handle, index=False, lineterminator="\n")
