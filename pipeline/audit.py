"""Stage `audit`: what in a data set would make a score too good. Leaks are errors, all else is a warning."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import UserError
from pipeline.files import atomic_open, sha256_file, write_json
from pipeline.leaks import SUSPECT, leaks
from pipeline.manifest import read_manifest, read_splits
from pipeline.params import AuditParams
from pipeline.progress import note, warn
from pipeline.suspects import Films, copies, near_duplicates, overlap
from pipeline.thumbnails import NAME

_SHOWN = 20  # leaks that are printed; all are in the table
_KINDS = {
    "unknown-image": "error",
    "changed-patient": "error",
    "patient": "error",
    "identical": "error",
    "overlap": "error",
    "near-duplicate": "warning",
    "near-overlap": "warning",
    "copy": "warning",
    "near-copy": "warning",
}
"""What is looked for, the worst first, and how serious it is."""


def audit(
    manifest_path: Path,
    splits_path: Path,
    out: Path,
    params: AuditParams,
    thumbnails: Path | None = None,
    raw: Path | None = None,
    against: Sequence[Path] = (),
) -> list[str]:
    """Look for leaks and copies; write all suspects as CSV and their counts beside it (`audit.json`).

    Parameters
    ----------
    manifest_path, splits_path : Path
        Tables that satisfy the schema, whoever wrote them.
    out : Path
        CSV with the columns `pipeline.leaks.SUSPECT`, the worst first.
    params : AuditParams
        When pictures count as nearly the same.
    thumbnails : Path or None
        What `ingest` wrote; None: beside the manifest. Without it the images are read from `raw`.
    raw : Path or None
        What the manifest's paths are relative to; may be missing. Pairs that cannot be compared are judged by their
        hashes alone, more strictly.
    against : sequence of Path
        Other manifests, whose sets must share no picture with this one (their thumbnails are sought beside them).

    Returns
    -------
    list of str
        A sentence for each error; the tables are written in any case.

    Raises
    ------
    UserError
        If a table is missing or breaks its schema, or a file of thumbnails is something else.
    """
    manifest, splits = read_manifest(manifest_path), read_splits(splits_path)
    films = Films.of(manifest, thumbnails or manifest_path.with_name(NAME), raw, splits)
    found = [leaks(manifest, splits), copies(films), *near_duplicates(films, params)]
    for other_path in against:
        if other_path.resolve() == manifest_path.resolve():
            raise UserError(f"--against {other_path} is the manifest that is audited; give another set's")
        other = Films.of(read_manifest(other_path), other_path.with_name(NAME), None)
        found += overlap(films, other, params, str(other_path))
    table = _ordered(found)
    with atomic_open(out) as handle:
        table.to_csv(handle, index=False, lineterminator="\n", float_format="%.4f")
    summary = summarise(table, films, params, against)
    hashes = {"manifest_sha256": sha256_file(manifest_path), "splits_sha256": sha256_file(splits_path)}
    write_json(out.with_name("audit.json"), summary | hashes)
    _say(summary, films, out)
    return table.loc[table["severity"] == "error", "detail"].tolist()


def summarise(table: pd.DataFrame, films: Films, params: AuditParams, against: Sequence[Path]) -> dict[str, Any]:
    """Count the suspects of each kind and say what was compared.

    Returns
    -------
    dict
        `kinds` (every kind, also those with 0), `errors`, `warnings` and `compared`: images, patients, images with a
        perceptual hash, images with a thumbnail among those that had to be compared, the parameters, and the names of
        the other sets.
    """
    counts = table["kind"].value_counts()
    wanted = {kind: severity for kind, severity in _KINDS.items() if against or "overlap" not in kind}
    return {
        "kinds": {kind: int(counts.get(kind, 0)) for kind in wanted},
        "errors": int((table["severity"] == "error").sum()),
        "warnings": int((table["severity"] == "warning").sum()),
        "compared": {
            "images": int((films.table["split"] != "").sum()),
            "patients": int(films.table.loc[films.table["split"] != "", "patient_id"].nunique()),
            "hashed": int(films.hashed.sum()),
            "candidates": films.asked,
            "thumbnails": films.seen,
            "distance": params.distance,
            "similarity": params.similarity,
            "against": [path.parent.name + "/" + path.name for path in against],
        },
    }


def _ordered(found: list[pd.DataFrame]) -> pd.DataFrame:
    tables = [table for table in found if len(table)]
    if not tables:
        return pd.DataFrame(columns=list(SUSPECT))
    table = pd.concat(tables, ignore_index=True)
    rank = table["kind"].map({kind: place for place, kind in enumerate(_KINDS)})
    order = table.assign(rank=rank, unlike=1 - table["similarity"])
    columns = ["rank", "unlike", "distance", "image_a", "image_b"]
    return order.sort_values(columns, kind="stable")[list(SUSPECT)].reset_index(drop=True)


def _say(summary: dict[str, Any], films: Films, out: Path) -> None:
    kinds = ", ".join(f"{kind} {count}" for kind, count in summary["kinds"].items() if count)
    if unhashed := int((~films.hashed).sum()):
        warn(f"{unhashed} images have no perceptual hash and were compared by their pixels' SHA-256 only")
    if films.asked > films.seen:
        warn(f"{films.asked - films.seen} of {films.asked} images to be compared have no thumbnail and no file to read")
    if summary["warnings"]:
        warn(f"{summary['warnings']} pairs of images look suspicious ({kinds}); see {out}")
    note(f"{summary['compared']['images']} images of {summary['compared']['patients']} patients audited; {out}")


def shown(errors: list[str]) -> list[str]:
    """Shorten a list of errors for the terminal, and keep out of it what a table of others could do to one."""
    rest = len(errors) - _SHOWN
    lines = ["".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text) for text in errors]
    return lines[:_SHOWN] + ([f"… and {rest} more"] if rest > 0 else [])
