"""Copies and near-duplicates, within a set and between two."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.crops import cropped_pairs
from pipeline.leaks import suspects
from pipeline.near_duplicates import Hashes, Places, pairs_within, renumbered, similarity
from pipeline.parallel import run_all
from pipeline.params import AuditParams
from pipeline.thumbnails import SIDE, Pictures, Thumbnails, from_hex, read_thumbnails, thumbnail_of

UNSEEN = 2
"""Bits up to which hashes alone make a suspect where there is nothing to compare; docs/audit.md gives the precision."""


@dataclass
class Films:
    """The images of a set, one row each, with what is needed to compare them.

    Attributes
    ----------
    table : DataFrame
        `image_id, patient_id, path, sha256, split`; split is '' where the image is in none.
    hashes : ndarray of uint64
        Perceptual hashes.
    hashed : ndarray of bool
        Where there is one.
    store : Thumbnails
        Those that `ingest` wrote.
    raw : Path or None
        Where the files of the others are.
    asked, seen : int
        How many images had to be compared, and how many could be.
    """

    table: pd.DataFrame
    hashes: Hashes
    hashed: NDArray[np.bool_]
    store: Thumbnails
    raw: Path | None
    asked: int = field(default=0)
    seen: int = field(default=0)

    @classmethod
    def of(
        cls, manifest: pd.DataFrame, thumbnails: Path, raw: Path | None, splits: pd.DataFrame | None = None
    ) -> "Films":
        """Take what a manifest and its splits say; without splits every image is in none."""
        table = manifest[["image_id", "patient_id", "path", "sha256"]].reset_index(drop=True)
        sides = {} if splits is None else dict(zip(splits["image_id"].tolist(), splits["split"].tolist(), strict=True))
        table["split"] = [sides.get(image, "") for image in table["image_id"].tolist()]
        table = table.astype({"split": "str"})
        hashes, known = from_hex(manifest["phash"])
        known &= (manifest["phash"].str.len() == 16).to_numpy(dtype=bool)
        return cls(table, hashes, known, read_thumbnails(thumbnails), raw)

    def thumbnails(self, places: Places) -> tuple[Pictures, NDArray[np.bool_]]:
        """Return thumbnails of rows and where they are known; read the files of those that `ingest` did not write."""
        rows = self.table.iloc[places]
        pixels, known = self.store.find(rows["sha256"])
        if self.raw is not None and self.raw.is_dir() and not known.all():
            missing = np.flatnonzero(~known)
            absent = rows.iloc[missing]
            files = list(zip(absent["path"].tolist(), absent["sha256"].tolist(), strict=True))
            fetch = partial(thumbnail_of, raw=self.raw)
            read = run_all(fetch, files, "reading images to compare", on_crash=lambda _: b"")
            for place, data in zip(missing, read, strict=True):
                if data:
                    pixels[place], known[place] = np.frombuffer(data, np.uint8).reshape(SIDE, SIDE), True
        self.asked += len(places)
        self.seen += int(known.sum())
        return pixels, known


def copies(films: Films) -> pd.DataFrame:
    """Find equal pixels under several names within a split, such as an archive's second copy of itself."""
    table = films.table[films.table["split"] != ""].sort_values("image_id")
    table = table[table.duplicated(["sha256", "split"], keep=False)]
    first = table.drop_duplicates(["sha256", "split"])
    pairs = first.merge(table, on=["sha256", "split"], suffixes=("_a", "_b"))
    pairs = pairs[pairs["image_id_a"] != pairs["image_id_b"]]
    named = pairs.rename(columns={"image_id_a": "image_a", "image_id_b": "image_b", "split": "split_a"})
    named["split_b"] = named["split_a"]
    return suspects(named, "copy", "warning", "equal pixels; " + _patients(named), 0)


def near_duplicates(films: Films, params: AuditParams) -> list[pd.DataFrame]:
    """Find pictures that are nearly the same, on two sides (`near-duplicate`) and within one (`near-copy`)."""
    used = films.hashed & (films.table["split"] != "").to_numpy(dtype=bool)
    # One image stands for its copies on a side: an archive that holds itself twice has no more pairs for it.
    used &= ~films.table.sort_values("image_id").duplicated(["sha256", "split"]).sort_index().to_numpy(dtype=bool)
    pairs = _similar(films, films, used, used, params)
    across = pairs["split_a"] != pairs["split_b"]
    detail = _how(pairs) + "; " + _patients(pairs)
    return [
        suspects(pairs[rows], kind, "warning", detail[rows], pairs.loc[rows, "distance"])
        for kind, rows in (("near-duplicate", across), ("near-copy", ~across))
    ]


def overlap(films: Films, other: Films, params: AuditParams, name: str) -> list[pd.DataFrame]:
    """Find pictures that another set holds too, equal (`overlap`, an error) or nearly so (`near-overlap`).

    Parameters
    ----------
    films, other : Films
        All images of both, in a split or not.
    name : str
        The other manifest, for the sentences.
    """
    theirs = other.table.drop_duplicates("sha256")
    equal = films.table.merge(theirs, on="sha256", suffixes=("_a", "_b"))
    equal = equal.rename(columns={"image_id_a": "image_a", "image_id_b": "image_b"}).assign(split_b="")
    text = "image " + equal["image_a"] + " has the pixels of " + equal["image_b"] + f" in {name}"
    pairs = _similar(
        films,
        other,
        films.hashed & ~films.table["sha256"].duplicated().to_numpy(dtype=bool),
        other.hashed & ~other.table["sha256"].duplicated().to_numpy(dtype=bool),
        params,
    )
    detail = _how(pairs) + f"; the second is in {name}"
    return [
        suspects(equal, "overlap", "error", text, 0),
        suspects(pairs, "near-overlap", "warning", detail, pairs["distance"]),
    ]


def _similar(
    left: Films, right: Films, left_used: NDArray[np.bool_], right_used: NDArray[np.bool_], params: AuditParams
) -> pd.DataFrame:
    """Return the pairs of different pixels that are similar enough, with `distance` and `similarity`."""
    a, b = np.flatnonzero(left_used), np.flatnonzero(right_used)
    left_hashes = left.hashes[a]
    i, j, distance = pairs_within(left_hashes, left_hashes if left is right else right.hashes[b], params.distance)
    i, j = a[i], b[j]
    other = (left.table["sha256"].to_numpy()[i] != right.table["sha256"].to_numpy()[j]).astype(bool)
    i, j, distance = i[other], j[other], distance[other]
    alike = _alike(left, right, i, j, params.similarity)
    keep = np.where(np.isnan(alike), distance <= UNSEEN, alike >= params.similarity).astype(bool)
    i, j, alike = i[keep], j[keep], alike[keep]
    more_i, more_j, more_alike = _cropped(left, right, a, b, params.similarity)
    new = ~np.isin(more_i * len(right.table) + more_j, i * len(right.table) + j)
    cropped = np.repeat([False, True], [len(i), int(new.sum())])
    i, j = np.concatenate([i, more_i[new]]), np.concatenate([j, more_j[new]])
    alike = np.concatenate([alike, more_alike[new]])
    distance = np.bitwise_count(left.hashes[i] ^ right.hashes[j])
    one, two = left.table.iloc[i], right.table.iloc[j]
    names = {"image_id": "image", "split": "split", "patient_id": "patient_id"}
    columns = {f"{new}_a": one[old].to_numpy() for old, new in names.items()}
    columns |= {f"{new}_b": two[old].to_numpy() for old, new in names.items()}
    return pd.DataFrame(columns | {"distance": distance.astype(np.int64), "similarity": alike, "cropped": cropped})


def _cropped(
    left: Films, right: Films, a: Places, b: Places, least: float
) -> tuple[Places, Places, NDArray[np.float64]]:
    """Return the rows of pictures of which one looks like a part of the other, among those with a stored thumbnail."""
    ours, known = left.store.find(left.table["sha256"].iloc[a])
    a, ours = a[known], ours[known]
    if left is right:
        b, theirs = a, ours
    else:
        theirs, known = right.store.find(right.table["sha256"].iloc[b])
        b, theirs = b[known], theirs[known]
    i, j, alike = cropped_pairs(ours, theirs, least)
    i, j = a[i], b[j]
    other = (left.table["sha256"].to_numpy()[i] != right.table["sha256"].to_numpy()[j]).astype(bool)
    return i[other], j[other], alike[other]


def _alike(left: Films, right: Films, i: Places, j: Places, least: float) -> NDArray[np.float64]:
    """Compare the pairs by their thumbnails; NaN where one is missing or has no contrast."""
    if left is right:
        places, index = renumbered(np.concatenate([i, j]), len(left.table))
        pixels, known = left.thumbnails(places)
        one, two = index[: len(i)], index[len(i) :]
        return np.where(known[one] & known[two], similarity(pixels, pixels, one, two, least), np.nan)
    (first, one), (second, two) = renumbered(i, len(left.table)), renumbered(j, len(right.table))
    (ours, known), (theirs, known_too) = left.thumbnails(first), right.thumbnails(second)
    return np.where(known[one] & known_too[two], similarity(ours, theirs, one, two, least), np.nan)


def _patients(pairs: pd.DataFrame) -> pd.Series:
    same = pairs["patient_id_a"] == pairs["patient_id_b"]
    return same.map({True: "the same patient", False: "different patients"}).astype("str")


def _how(pairs: pd.DataFrame) -> pd.Series:
    seen = pairs["similarity"].notna()
    words = {True: "nearly the same picture", False: "nearly the same hash, not compared: no thumbnail"}
    return seen.map(words).astype("str").mask(pairs["cropped"], "nearly the same picture, one of the two cropped")
