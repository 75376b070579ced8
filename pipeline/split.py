"""Stage `split`: put every patient, and so every image, in exactly one of train, val and test."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.files import atomic_open, write_json
from pipeline.leaks import require_no_leak
from pipeline.manifest import SPLITS, findings_of, read_manifest
from pipeline.params import SplitParams
from pipeline.progress import note, warn
from pipeline.stratify import assign_groups

_TEST_LISTS = {"official": ("train_val", "test"), "folder": ("train", "val", "test")}


def group_patients(manifest: pd.DataFrame) -> pd.Series:
    """Give each image the group that must stay together.

    Patients who share an identical picture (equal `sha256`) form one group: one of the two names is wrong, or the
    file was filed twice, and either way the picture must not stand on two sides.

    Returns
    -------
    Series of str, shape (n_images,)
        The alphabetically first patient of the group; independent of the order of the rows.
    """
    leader = {patient: patient for patient in manifest["patient_id"].unique()}

    def find(patient: str) -> str:
        while leader[patient] != patient:
            patient = leader[patient]
        return patient

    for _, patients in manifest.groupby("sha256")["patient_id"]:
        roots = sorted({find(patient) for patient in patients.unique()})
        for root in roots[1:]:
            leader[root] = roots[0]
    return manifest["patient_id"].map(find)


def split_images(manifest: pd.DataFrame, params: SplitParams) -> pd.DataFrame:
    """Split by whole patients under a protocol.

    Parameters
    ----------
    manifest : DataFrame
        The manifest; the order of its rows does not matter.
    params : SplitParams
        'patient' puts all images 7:2:1 (by default). 'official' and 'folder' take the test set that the source
        names and draw validation from the rest, in the proportion val/(train+val). Training images of a patient who
        also has test images there are left out of the table.

    Returns
    -------
    DataFrame
        `image_id, patient_id, split`, sorted by image_id.

    Raises
    ------
    UserError
        If the source names no such test set, or a split would get no patient.
    """
    table = manifest.sort_values("image_id", kind="stable").reset_index(drop=True)
    groups = group_patients(table)
    if params.protocol == "patient":
        split = _stratified(table, groups, {"train": params.train, "val": params.val, "test": params.test}, params.seed)
    else:
        split = _with_given_test(table, groups, params)
    empty = [name for name in SPLITS if not (split == name).any()]
    if empty:
        raise UserError(
            f"no patient is left for {' and '.join(empty)}: {groups.nunique()} patients are too few for "
            f"{params.train:g}:{params.val:g}:{params.test:g}"
        )
    return table.assign(split=split).loc[split != "", ["image_id", "patient_id", "split"]].reset_index(drop=True)


def describe_split(manifest: pd.DataFrame, splits: pd.DataFrame, protocol: str) -> dict[str, Any]:
    """Count images, patients and each finding's prevalence per split.

    Returns
    -------
    dict
        `protocol`, `left_out` (images in no split), `left_out_reasons` (reason to number) and per split `images`,
        `patients`, `share` and, per finding, `positive`, `known`, `prevalence` (NaN where nothing is known).
    """
    joined = splits.merge(manifest.drop(columns="patient_id"), on="image_id")
    description: dict[str, Any] = {"protocol": protocol, "left_out": len(manifest) - len(splits)}
    description["left_out_reasons"] = _left_out(manifest, splits, protocol)
    for name in SPLITS:
        rows = joined[joined["split"] == name]
        findings = {}
        for finding in findings_of(manifest):
            known, positive = int(rows[finding].notna().sum()), int((rows[finding] == 1).sum())
            prevalence = positive / known if known else float("nan")
            findings[finding] = {"positive": positive, "known": known, "prevalence": prevalence}
        description[name] = {
            "images": len(rows),
            "patients": int(rows["patient_id"].nunique()),
            "share": len(rows) / len(joined),
            "findings": findings,
        }
    return description


def split(manifest_path: Path, out: Path, summary: Path, params: SplitParams) -> None:
    """Write the splits after auditing them, and a summary as JSON.

    Raises
    ------
    UserError
        If the manifest cannot be split (see `split_images`) or the audit finds a leak; nothing is written then.
    """
    manifest = read_manifest(manifest_path)
    splits = split_images(manifest, params)
    require_no_leak(manifest, splits)
    description = describe_split(manifest, splits, params.protocol)
    write_json(summary, description)
    with atomic_open(out) as handle:
        splits.to_csv(handle, index=False, lineterminator="\n")
    if description["left_out"]:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in description["left_out_reasons"].items())
        warn(f"{description['left_out']} images are in no split ({reasons})")
    counts = ", ".join(f"{name} {description[name]['images']}" for name in SPLITS)
    note(f"protocol {params.protocol}, images: {counts}; no patient and no picture is on two sides")


def _left_out(manifest: pd.DataFrame, splits: pd.DataFrame, protocol: str) -> dict[str, int]:
    """Count the images in no split by reason; only protocols with a given test set leave any out."""
    out = manifest[~manifest["image_id"].isin(set(splits["image_id"]))]
    if out.empty:
        return {}
    unlisted = ~out["official_split"].isin(_TEST_LISTS.get(protocol, ()))
    reasons = {
        "the patient, or the same picture, is also in the given test set": int((~unlisted).sum()),
        "in none of the source's lists": int(unlisted.sum()),
    }
    return {reason: count for reason, count in reasons.items() if count}


def _stratified(table: pd.DataFrame, groups: pd.Series, shares: dict[str, float], seed: int) -> pd.Series:
    if table.empty:
        return pd.Series("", index=table.index, dtype="str")
    names, index = np.unique(groups.to_numpy(dtype="str"), return_inverse=True)
    counts = _counts(table, index, len(names))
    assigned = assign_groups(counts, np.array(list(shares.values())), seed)
    return pd.Series(np.array(list(shares))[assigned[index]], index=table.index)


def _counts(table: pd.DataFrame, index: NDArray[np.intp], n_groups: int) -> NDArray[np.int64]:
    """Count per group: images, then positives of each finding; shape (n_groups, 1 + n_findings)."""
    positive = (table[findings_of(table)] == 1).fillna(False).to_numpy(dtype=np.int64)
    values = np.column_stack([np.ones(len(table), np.int64), positive])
    counts = np.zeros((n_groups, values.shape[1]), np.int64)
    np.add.at(counts, index, values)
    return counts


def _with_given_test(table: pd.DataFrame, groups: pd.Series, params: SplitParams) -> pd.Series:
    known = _TEST_LISTS[params.protocol]
    if not (table["official_split"] == "test").any() or not table["official_split"].isin(known[:-1]).any():
        raise UserError(
            f"split.protocol is {params.protocol!r}, but the source names no such sets "
            f"({', '.join(known)}); allowed here: patient, or add the source's lists"
        )
    test = table["official_split"] == "test"
    rest = table["official_split"].isin(known[:-1]) & ~groups.isin(set(groups[test]))
    split = pd.Series("", index=table.index, dtype="str").mask(test, "test")
    whole = params.train + params.val
    shares = {"train": params.train / whole, "val": params.val / whole}
    split[rest] = _stratified(table[rest], groups[rest], shares, params.seed)
    return split
