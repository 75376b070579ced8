"""Fit the input gate on the training films, and set its thresholds on the validation films; `export` calls it.

The test split is never looked at.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.gate import Gate
from pipeline.gate_bad import Equalise, jittered, make_bad
from pipeline.gate_distance import fit_distance
from pipeline.gate_pattern import CLASSES, PatternNet, fit_pattern_net, patterns, strangeness
from pipeline.images import Image, clahe
from pipeline.params import GateParams
from pipeline.shards import HEADER, Processed
from pipeline.statistics.proportions import exact_interval

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

_VAL_FILMS = 5000  # at most; their number bounds how exactly a pass rate can be kept
_BAD_OF_VAL = 4  # bad images made of each validation film
_CHUNK = 64  # images that the model is asked about at a time
_JITTERS = 2  # jittered copies of each training film beside the film itself
_ASPECT = (0.75, 4 / 3)  # always allowed: the formats of chest cassettes, 35 x 43 cm and squarer
_WIDER = 1.15  # by how much a film's proportion may lie outside those of training
_LEAST_FILMS = 20


@dataclass(frozen=True, eq=False)
class FitInput:
    """The films a gate is fitted on; from the processed images, or in benchmarks from anywhere.

    Attributes
    ----------
    train, val : ndarray of shape (n, size, size), dtype=uint8
        Prepared films.
    shapes : ndarray of shape (m, 2)
        Width and height of the training films; of no row if unknown.
    val_patients : ndarray of shape (n_val,)
        Whose the validation films are.
    equalise : callable
        What preparation does after it has resized.
    """

    train: NDArray[np.uint8]
    val: NDArray[np.uint8]
    shapes: NDArray[np.float64]
    val_patients: NDArray[Any]
    equalise: Equalise


def fit_gate(data: Processed, embed: Embed | None, model_sha256: str, params: GateParams) -> Gate:
    """Fit the gate of a model.

    Parameters
    ----------
    data : Processed
        The processed images; splits train and val are read.
    embed : callable or None
        From images, uint8 (n, size, size, 1), to the model's features, float32 (n, d), as `Exported.embedding`; None:
        no distance in feature space.
    model_sha256 : str
        Of the `model.keras` that the features are of.
    params : GateParams
        Section `gate`.

    Returns
    -------
    Gate

    Raises
    ------
    UserError
        If train or val have fewer than 20 films.
    """
    return fit(gather(data, params), embed, model_sha256, params)


def gather(data: Processed, params: GateParams) -> FitInput:
    """Read the films: a random choice of at most `params.films` of train, and up to 5,000 of val."""
    rng = np.random.default_rng(params.seed)
    chosen = {}
    for split, most in (("train", params.films), ("val", _VAL_FILMS)):
        count = len(data.rows(split))
        if count < _LEAST_FILMS:
            raise UserError(f"split {split} has {count} films; the gate needs {_LEAST_FILMS} or more of train and val")
        chosen[split] = np.sort(rng.choice(count, min(count, most), replace=False))
    shapes = data.rows("train")[["width", "height"]].astype(float).dropna().to_numpy()
    patients = data.rows("val")["patient_id"].to_numpy(np.str_)[chosen["val"]]
    films = {split: read_films(data, split, positions) for split, positions in chosen.items()}
    return FitInput(films["train"], films["val"], shapes, patients, equaliser(data.meta["preprocess"]))


def read_films(data: Processed, split: str, positions: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Return the prepared films at some positions of a split, (n, size, size), straight from the shards."""
    side = data.size
    record = np.dtype([("length", "<u8"), ("crc", "<u4"), ("row", f"V{HEADER.size}"), ("pixels", "u1", (side, side))])
    record = np.dtype([*((name, record[name]) for name in record.names or ()), ("data_crc", "<u4")])
    parts, start = [], 0
    for path in data.files(split):
        records = np.memmap(path, record, "r")
        here = positions[(positions >= start) & (positions < start + len(records))] - start
        parts.append(records["pixels"][here])
        start += len(records)
    return np.concatenate(parts)


def equaliser(preprocess: dict[str, Any]) -> Equalise:
    """Return what `pipeline.images.prepare` does after it has resized."""
    if not preprocess["clahe"]:
        return np.asarray
    return partial(clahe, clip_limit=float(preprocess["clip_limit"]), tiles=int(preprocess["tiles"]))


def fit(films: FitInput, embed: Embed | None, model_sha256: str, params: GateParams) -> Gate:
    """Fit the gate on given films; see `fit_gate`."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):  # sums in the same order, so the same gate, on any number of cores
        return _fit(films, embed, model_sha256, params)


def _fit(films: FitInput, embed: Embed | None, model_sha256: str, params: GateParams) -> Gate:
    rng = np.random.default_rng(params.seed)
    net = _net(rng, films, params)
    bad, kinds = make_bad(rng, films.val[:: max(1, len(films.val) // 1000)], _BAD_OF_VAL, films.equalise)
    good_odds, bad_odds = (strangeness(net.logits(patterns(images))) for images in (films.val, bad))
    distance = None if embed is None else fit_distance(_embedded(embed, films.train), params.components)
    far = None if distance is None or embed is None else distance(_embedded(embed, films.val))
    detectors = 1 if far is None else 2
    net_threshold = _with_room(
        tail_threshold(good_odds, params.pass_rate, detectors), float(np.quantile(bad_odds, 1 - params.flag_rate))
    )
    far_threshold = float("inf") if far is None else tail_threshold(far, params.pass_rate, detectors)
    passed = (good_odds <= net_threshold) & (True if far is None else far <= far_threshold)
    return Gate(
        model_sha256=model_sha256,
        size=films.train.shape[1],
        net=net,
        net_threshold=net_threshold,
        distance=distance,
        distance_threshold=far_threshold,
        aspect=_aspect(films.shapes),
        min_side=int(min([films.train.shape[1], *films.shapes.min(axis=1, initial=np.inf)])),
        record=_record(films, params, passed, np.array(kinds), bad_odds > net_threshold),
    )


def tail_threshold(scores: NDArray[np.float64], pass_rate: float, detectors: int) -> float:
    """Return a threshold that new films exceed, over all detectors, as often as 1 - `pass_rate` allows.

    A new film exceeds the j-th largest of n scores with probability j / (n + 1), whatever their distribution (David and
    Nagaraja, "Order statistics", 2003, section 2.5). Where even the largest is exceeded too often, because the films
    are few, the threshold lies above it, by a quarter of its distance from the median.
    """
    ordered = np.sort(scores)[::-1]
    allowed = int((1 - pass_rate) * (len(scores) + 1) / detectors + 1e-9)
    if allowed >= 1:
        return float(ordered[allowed - 1])
    return float(ordered[0] + 0.25 * (ordered[0] - np.median(ordered)))


def _with_room(threshold: float, of_bad: float) -> float:
    """Move a threshold half the way to the scores of bad images, where these are larger: films of tomorrow differ."""
    return (threshold + of_bad) / 2 if of_bad > threshold else threshold


def _net(rng: np.random.Generator, films: FitInput, params: GateParams) -> PatternNet:
    moved = [jittered(rng, film, films.equalise) for film in films.train for _ in range(_JITTERS)]
    bad, kinds = make_bad(rng, films.train, params.bad_images, films.equalise)
    good: list[Image] = [*films.train, *moved]
    seen = np.concatenate([patterns(good), patterns(bad)])
    labels = np.array([0] * len(good) + [CLASSES.index(kind) for kind in kinds], np.intp)
    return fit_pattern_net(seen, labels, params.hidden, params.epochs, params.seed)


def _embedded(embed: Embed, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    parts = [embed(images[start : start + _CHUNK, :, :, None]) for start in range(0, len(images), _CHUNK)]
    return np.concatenate(parts)


def _aspect(shapes: NDArray[np.float64]) -> tuple[float, float]:
    """Return the least and largest width / height that pass."""
    ratios = shapes[:, 0] / shapes[:, 1] if len(shapes) else np.array(_ASPECT)
    return min(_ASPECT[0], float(ratios.min()) / _WIDER), max(_ASPECT[1], float(ratios.max()) * _WIDER)


def _record(
    films: FitInput,
    params: GateParams,
    passed: NDArray[np.bool_],
    kinds: NDArray[np.str_],
    flagged: NDArray[np.bool_],
) -> dict[str, Any]:
    """Say how the gate was fitted and what it does on validation; the interval counts patients, not images."""
    patients = len(np.unique(films.val_patients))
    low, high = exact_interval(float(passed.mean()), patients, 0.95)
    return {
        "parameters": dataclasses.asdict(params),
        "films": {"train": len(films.train), "val": len(films.val), "val_patients": patients},
        "passed": {"share": float(passed.mean()), "ci_low": low, "ci_high": high, "confidence": 0.95},
        "flagged": {
            kind: {"share": float(flagged[kinds == kind].mean()), "images": int((kinds == kind).sum())}
            for kind in CLASSES[1:]
            if (kinds == kind).any()
        },
    }
