"""Stage `ingest`: from a data set's own layout to the manifest; every file is opened, decoded and hashed."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.checking import Checked, check_file
from pipeline.datasets import Catalogue, read_catalogue
from pipeline.errors import UserError
from pipeline.files import atomic_open, write_json
from pipeline.manifest import findings_of, write_manifest
from pipeline.parallel import run_all
from pipeline.params import IngestParams, Params
from pipeline.progress import note, warn
from pipeline.quarantine import Reason, Refused, Suspicious, count_by_code, write_quarantine
from pipeline.thumbnails import NAME, SIDE, Pictures, write_thumbnails


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
    sizes : ndarray of shape (n_images, 2)
        Width and height of the files in pixels, in the order of the manifest. The manifest's own may be the
        detector's, which NIH's table gives.
    """

    manifest: pd.DataFrame
    refused: list[Refused]
    suspicious: list[Suspicious]
    thumbnails: Pictures
    sizes: NDArray[np.int64]


def build_manifest(catalogue: Catalogue, raw: Path, params: IngestParams, workers: int | None = None) -> Ingested:
    """Check every file that the adapter found; `params.refuse` decides which suspicious ones stay."""
    rows = catalogue.rows
    check = partial(check_file, raw=raw, max_pixels=params.max_pixels, min_side=params.min_side)
    paths = rows["path"].tolist()  # a tenth of the time of going through the column itself
    checked = list(run_all(check, paths, "checking files", workers, on_crash=_crashed))
    manifest = rows.assign(
        followup=rows["followup"].astype("Int64"),
        width=_or_else(rows["width"], [item.width for item in checked]),
        height=_or_else(rows["height"], [item.height for item in checked]),
        sha256=[item.sha256 for item in checked],
        phash=[item.phash for item in checked],
    )
    refused = catalogue.refused + [
        Refused(path, item.code, item.reason) for path, item in zip(paths, checked, strict=True) if item.code
    ]
    usable = np.array([item.code is None for item in checked], dtype=bool)
    suspicious = catalogue.suspicious + _seen(rows[usable], [item for item in checked if item.code is None])
    suspicious += find_conflicts(manifest[usable])
    refused += [Refused(item.path, item.code, item.reason) for item in suspicious if item.code in params.refuse]
    out = {item.path for item in refused}
    usable &= ~rows["path"].isin(out).to_numpy(dtype=bool)
    pixels = np.frombuffer(b"".join(item.thumbnail for item, good in zip(checked, usable, strict=True) if good), "u1")
    kept = [item for item in suspicious if item.path not in out]
    sizes = np.array([(item.width, item.height) for item in checked], np.int64).reshape(-1, 2)[usable]
    return Ingested(manifest[usable], refused, kept, pixels.reshape(-1, SIDE, SIDE), sizes)


def _crashed(_: str) -> Checked:
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
    for path, view, item in zip(rows["path"].tolist(), rows["view"].tolist(), checked, strict=True):
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
    _write_boxes(boxes or out.with_name("boxes.csv"), catalogue.boxes, found)
    write_thumbnails(thumbnails or out.with_name(NAME), found.manifest["sha256"], found.thumbnails)
    if found.refused:
        warn(f"{len(found.refused)} files or rows are kept out; the reasons are in {quarantine}")
    if late := sum(item.code is Reason.GAVE_UP for item in found.refused):
        warn(
            f"the decoder gave up on {late} of them, perhaps on a busy machine: `dvc repro --force ingest` tries again"
        )
    if found.suspicious:
        warn(f"{summary['suspicious']} files stay in and look suspicious; see {quarantine}")
    note(f"{summary['images']} images of {summary['patients']} patients in {out}")


def _write_boxes(path: Path, boxes: pd.DataFrame, found: Ingested) -> None:
    """Write the boxes of the usable images; they are in pixels of the file, whose size stands beside them."""
    columns = {"file_width": found.sizes[:, 0], "file_height": found.sizes[:, 1]}
    sizes = pd.DataFrame({"image_id": found.manifest["image_id"].to_numpy(), **columns})
    with atomic_open(path) as handle:
        boxes.merge(sizes, on="image_id", how="inner").to_csv(handle, index=False, lineterminator="\n")
