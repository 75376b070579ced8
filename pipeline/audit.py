"""Leaks: a patient or a picture on two sides of a split."""

import pandas as pd

from pipeline.errors import UserError


def find_leaks(manifest: pd.DataFrame, splits: pd.DataFrame) -> list[str]:
    """Look for patients and for identical pictures in more than one split.

    Parameters
    ----------
    manifest : DataFrame
        With `image_id`, `patient_id`, `sha256`.
    splits : DataFrame
        With `image_id`, `patient_id`, `split`.

    Returns
    -------
    list of str
        One sentence per leak; empty when there is none. Images that the manifest lacks, and patients who differ
        between the two tables, are named too: neither can be audited.
    """
    joined = splits.merge(
        manifest[["image_id", "patient_id", "sha256"]], on="image_id", how="left", suffixes=("", "_manifest")
    )
    lost = joined["sha256"].isna()
    leaks = [f"image {image} is split but not in the manifest" for image in joined.loc[lost, "image_id"]]
    joined = joined[~lost]
    changed = joined["patient_id"] != joined["patient_id_manifest"]
    leaks += [f"image {image} has another patient in the manifest" for image in joined.loc[changed, "image_id"]]
    for column, what in (("patient_id_manifest", "patient"), ("sha256", "picture")):
        sides = joined.groupby(column)["split"].unique()
        for key in sides[sides.map(len) > 1].index:
            images = joined.loc[joined[column] == key, "image_id"].tolist()
            leaks.append(f"{what} {key} is in {' and '.join(sorted(sides[key]))} (images {', '.join(images[:4])})")
    return leaks


def require_no_leak(manifest: pd.DataFrame, splits: pd.DataFrame) -> None:
    """Raise `UserError` naming the first leaks, if there is any (see `find_leaks`)."""
    if leaks := find_leaks(manifest, splits):
        raise UserError(f"{len(leaks)} leaks between the splits: {'; '.join(leaks[:3])}; run `cxr split` again")
