"""Trainings of the same network with several seeds: where they lie, whether they belong together, how they differ."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.files import atomic_open, sha256_file
from pipeline.params import TrainParams

MODEL = "model.keras"
FOLDER = "repeats"
_SEEDS = 2**31  # `train.seed` is below it, so that every repeat can be trained alone


@dataclass(frozen=True)
class Member:
    """One of the trained models.

    Attributes
    ----------
    seed : int
        The seed of its training.
    path : Path
        Its `model.keras`.
    """

    seed: int
    path: Path


def seeds_of(params: TrainParams) -> list[int]:
    """Return the seeds of the repeats: `seed`, `seed` + 1, …; after the greatest seed comes 0."""
    return [(params.seed + number) % _SEEDS for number in range(params.repeats)]


def folder_of(number: int, seed: int) -> PurePosixPath:
    """Return where repeat `number` (from 0) lies below the folder of models: the first is the model itself."""
    return PurePosixPath(FOLDER, f"seed-{seed}") if number else PurePosixPath()


def member_models(models: Path, training: dict[str, Any]) -> list[Member]:
    """Return the models of all repeats, the first one first, after a look at their checksums.

    Parameters
    ----------
    models : Path
        The folder of models.
    training : dict
        Its `training.json`.

    Raises
    ------
    UserError
        If the record lists none, or a file is missing or is not the one that was trained.
    """
    members = []
    for entry in training.get("repeats") or []:
        path = models / entry["path"]
        if not path.is_file():
            raise UserError(f"{path} is missing (repeat with seed {entry['seed']}): run `dvc repro` or `cxr train`")
        if sha256_file(path) != entry["model_sha256"]:
            raise UserError(f"{path} and {models / 'training.json'} do not belong together: train again")
        members.append(Member(int(entry["seed"]), path))
    if not members:
        raise UserError(f"{models / 'training.json'} lists no repeats (an earlier version wrote it): train again")
    return members


def write_repeats(path: Path, entries: list[dict[str, Any]]) -> None:
    """Write the `repeats` of `training.json` as a table, which also keeps DVC from calling the folder empty."""
    with atomic_open(path) as handle:
        writer = csv.DictWriter(handle, list(entries[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(entries)


def combine(probabilities: Sequence[NDArray[np.floating[Any]]] | NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return the ensemble's probabilities: the plain mean of the members' (Lakshminarayanan et al. 2017, section 2.4).

    Parameters
    ----------
    probabilities : array-like of shape (n_members, n_images, n_findings)
        In [0, 1]. A member's NaN stays NaN.

    Returns
    -------
    ndarray of shape (n_images, n_findings), dtype=float32
        Added up in float64.
    """
    return np.asarray(np.mean(np.asarray(probabilities), axis=0, dtype=np.float64), np.float32)


def spread(values: NDArray[np.floating[Any]], findings: Sequence[str]) -> dict[str, Any]:
    """Return how a score differs between seeds: the part of its uncertainty that a bootstrap of patients cannot see.

    A paper that reports one seed reports one draw (Bouthillier et al., MLSys 2021, section 2).

    Parameters
    ----------
    values : ndarray of shape (n_seeds, n_findings)
        The score of each seed's model on the same images; NaN where it is undefined.
    findings : sequence of str
        Names of the columns.

    Returns
    -------
    dict
        `seeds` (how many), `macro` and `findings`, each with `mean`, `sd`, `min`, `max` and `n`, the number of seeds
        in which the score is defined. The standard deviation is that of a sample (n - 1), NaN below two seeds.
        `macro` is over each seed's mean of the findings that are defined in every seed (`n_findings`), so that no
        seed is compared over other findings.
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or table.shape[1] != len(findings):
        raise ValueError(f"shape {table.shape} is not (n_seeds, {len(findings)})")
    everywhere = ~np.isnan(table).any(axis=0)
    means = table[:, everywhere].mean(axis=1) if everywhere.any() else np.full(len(table), np.nan)
    return {
        "seeds": len(table),
        "macro": {**summary(means), "n_findings": int(everywhere.sum())},
        "findings": {name: summary(table[:, k]) for k, name in enumerate(findings)},
    }


def summary(values: Sequence[float] | NDArray[np.floating[Any]]) -> dict[str, float]:
    """Return `mean`, `sd` (of a sample), `min`, `max` and `n` of what is not NaN; all but `n` NaN where nothing is."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    nan = float("nan")
    return {
        "mean": float(known.mean()) if len(known) else nan,
        "sd": float(known.std(ddof=1)) if len(known) > 1 else nan,
        "min": float(known.min()) if len(known) else nan,
        "max": float(known.max()) if len(known) else nan,
        "n": len(known),
    }
