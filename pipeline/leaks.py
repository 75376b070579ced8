"""Leaks: a patient or a picture on two sides of a split. Whatever else is suspected, these are certain."""

import pandas as pd

from pipeline.errors import UserError

SUSPECT = ("kind", "severity", "image_a", "image_b", "split_a", "split_b", "distance", "similarity", "detail")
"""Columns of a table of suspects, as `cxr audit` writes it."""

_NAMED = 4  # images of a leak that its sentence names


def suspects(
    pairs: pd.DataFrame, kind: str, severity: str, detail: pd.Series | str, distance: pd.Series | int | None = None
) -> pd.DataFrame:
    """Complete pairs of images to the columns of `SUSPECT`.

    Parameters
    ----------
    pairs : DataFrame
        `image_a, image_b, split_a, split_b`, and `similarity` if that is known.
    kind, severity : str
        What is suspected; `error` or `warning`.
    detail : Series or str
        A sentence a pair, or one for all.
    distance : Series, int or None
        Between the perceptual hashes; None where it means nothing.
    """
    table = pairs.assign(kind=kind, severity=severity, detail=detail, distance=distance)
    table["distance"] = table["distance"].astype("Int64")
    if "similarity" not in table:
        table["similarity"] = float("nan")
    return table[list(SUSPECT)].reset_index(drop=True)


def leaks(manifest: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """Look for patients and for identical pictures in more than one split.

    Parameters
    ----------
    manifest : DataFrame
        With `image_id`, `patient_id`, `sha256`.
    splits : DataFrame
        With `image_id`, `patient_id`, `split`.

    Returns
    -------
    DataFrame
        Columns `SUSPECT`, one row per leak and pair of sides, all of severity `error`; empty when there is none.
        `detail` is a sentence. Images that the manifest lacks, and patients who differ between the two tables, are
        leaks too: neither can be audited.
    """
    columns = ["image_id", "patient_id", "sha256"]
    joined = splits.merge(manifest[columns], on="image_id", how="left", suffixes=("_split", ""))
    lost = joined["sha256"].isna()
    changed = ~lost & (joined["patient_id"] != joined["patient_id_split"])
    known = joined[~lost]
    found = [
        _single(joined[lost], "unknown-image", "image {} is split but not in the manifest"),
        _single(joined[changed], "changed-patient", "image {} has another patient in the manifest"),
        _two_sides(known, "patient_id", "patient"),
        _two_sides(known, "sha256", "picture"),
    ]
    return pd.concat([table for table in found if len(table)] or found[:1], ignore_index=True)


def find_leaks(manifest: pd.DataFrame, splits: pd.DataFrame) -> list[str]:
    """Return one sentence per leak (see `leaks`)."""
    return leaks(manifest, splits)["detail"].tolist()


def require_no_leak(manifest: pd.DataFrame, splits: pd.DataFrame) -> None:
    """Raise `UserError` naming the first leaks, if there is any (see `leaks`)."""
    if found := find_leaks(manifest, splits):
        raise UserError(f"{len(found)} leaks between the splits: {'; '.join(found[:3])}; run `cxr split` again")


def side_pairs(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """Pair, for each value of `key` that is in several splits, the first image of each of its sides.

    Returns
    -------
    DataFrame
        `key`, `image_a, split_a, image_b, split_b`; split_a comes before split_b in the alphabet.
    """
    firsts = table.sort_values("image_id").drop_duplicates([key, "split"])[[key, "image_id", "split"]]
    firsts = firsts[firsts[key].duplicated(keep=False)].rename(columns={"image_id": "image"})
    pairs = firsts.merge(firsts, on=key, suffixes=("_a", "_b"))
    return pairs[pairs["split_a"] < pairs["split_b"]].sort_values([key, "split_a", "split_b"]).reset_index(drop=True)


def _single(rows: pd.DataFrame, kind: str, sentence: str) -> pd.DataFrame:
    pairs = pd.DataFrame({"image_a": rows["image_id"], "image_b": "", "split_a": rows["split"], "split_b": ""})
    return suspects(pairs, kind, "error", rows["image_id"].map(sentence.format))


def _two_sides(joined: pd.DataFrame, column: str, what: str) -> pd.DataFrame:
    pairs = side_pairs(joined, column)
    images = joined[joined[column].isin(set(pairs[column]))].sort_values("image_id").groupby(column)["image_id"]
    named = images.agg(lambda names: ", ".join(names.iloc[:_NAMED])).to_dict()
    sentences = [
        f"{what} {key} is in {first} and {second} (images {named[key]})"
        for key, first, second in zip(pairs[column], pairs["split_a"], pairs["split_b"], strict=True)
    ]
    kind = "patient" if column == "patient_id" else "identical"
    distance = None if column == "patient_id" else 0
    return suspects(pairs, kind, "error", pd.Series(sentences, index=pairs.index, dtype="str"), distance)
