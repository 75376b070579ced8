"""Score heat maps against the boxes that readers drew: pointing game, overlap, chance, and a model of shuffled weights.

docs/localisation.md says what each figure means and what it does not.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.box_places import BoxedPairs, boxed_pairs, inside
from pipeline.explain import Explainer, build_explainer
from pipeline.heat_maps import Map, is_flat
from pipeline.map_scores import CUTS, IOBB, IOU, SCORES, chance_of, score_map
from pipeline.params import EvaluateParams
from pipeline.progress import track
from pipeline.shards import Processed
from pipeline.statistics.bootstrap import Replicates, Resamples, divide, patient_sums, replicate, resample
from pipeline.statistics.intervals import Floats
from pipeline.statistics.proportions import printed

if TYPE_CHECKING:
    import keras

MAPS = ("model", "average_map", "shuffled")
"""Whose maps are scored; the last two are what the first has to beat."""
_BATCH = 32


def localise(
    model: "keras.Model", data: Processed, boxes: pd.DataFrame, split: str, params: EvaluateParams
) -> dict[str, Any]:
    """Score the model's maps against the boxes of one split.

    Parameters
    ----------
    model : keras.Model
        The trained model.
    data : Processed
        The processed images; only those with a box go through the model, a batch at a time.
    boxes : DataFrame
        Of `pipeline.box_places.read_boxes`.
    split : str
        test; validation where a choice is to be made.
    params : EvaluateParams
        `resamples`, `confidence`, `interval`, `seed`.

    Returns
    -------
    dict
        For `reports/localisation.json`: counts, `macro` (mean over the findings with boxes) and `findings`. Each of
        these two holds the scores of the model, `chance`, `average_map`, `shuffled` and the differences to them, all
        with intervals of a bootstrap of patients. `findings` is empty if no image of the split has a box.
    """
    pairs = boxed_pairs(data, boxes, split)
    result = _header(pairs, data, split, params)
    if not len(pairs.image):
        return result | {"macro": {}, "findings": {}}
    explainer = build_explainer(model)
    maps = pair_maps(explainer, data, split, pairs)
    noise = pair_maps(build_explainer(shuffled(model, params.seed), explainer.layer), data, split, pairs)
    values = score_pairs({"model": maps, "average_map": average_maps(maps, pairs), "shuffled": noise}, pairs, data.size)
    present, width = np.unique(pairs.finding), values.shape[1]
    table = _replicates(values, pairs, len(data.findings), params)
    counts = [_counts(pairs, int(f), is_flat(maps), is_flat(noise)) for f in present]
    entries = [
        _entry([table[[int(f) * width + column]] for column in range(width)], count["n_patients"])
        for f, count in zip(present, counts, strict=True)
    ]
    means = [table.mean([int(f) * width + column for f in present]) for column in range(width)]
    findings = {data.findings[f]: counts[k] | entries[k] for k, f in enumerate(present)}
    macro = {"n_findings": len(present)} | _entry(means, len(np.unique(pairs.patient)))
    result |= {"layer": explainer.layer, "method": explainer.method, "map_places": list(maps.shape[1:])}
    return result | {"macro": macro, "findings": findings}


def pair_maps(explainer: Explainer, data: Processed, split: str, pairs: BoxedPairs) -> Map:
    """Return the map of each pair, shape (n_pairs, h', w'), dtype=float32; only images with a box are computed."""
    from pipeline.scoring_input import images_in_order

    total = -(-len(data.rows(split)) // _BATCH)
    done = []
    for number, batch in enumerate(track(images_in_order(data, split, _BATCH), total, "explaining", "batches")):
        first = number * _BATCH
        of_batch = (pairs.image >= first) & (pairs.image < first + _BATCH)
        if of_batch.any():
            images, rows = np.unique(pairs.image[of_batch] - first, return_inverse=True)
            done.append(explainer.pairs(batch.numpy()[images], rows, pairs.finding[of_batch]))
    return np.concatenate(done)


def shuffled(model: "keras.Model", seed: int) -> "keras.Model":
    """Return a copy of the model in which the values of every weight tensor are permuted.

    What was learned is gone, and the distribution of the weights is kept. A map that looks as good as before shows
    the network's build or the film, not what the model learned (Adebayo et al., "Sanity checks for saliency maps",
    NeurIPS 2018, section 3, where weights are drawn anew).
    """
    import keras

    rng = np.random.default_rng(seed)
    copy = keras.models.clone_model(model)
    copy.set_weights([rng.permutation(each.ravel()).reshape(each.shape) for each in model.get_weights()])
    return copy


def average_maps(maps: Map, pairs: BoxedPairs) -> Map:
    """Return for each pair the mean map of the same finding on the films of other patients.

    It knows where the finding usually lies, and nothing of the film; each map is scaled to a top of 1 first, and flat
    ones are left out. NaN where there is no other patient.
    """
    top = maps.max(axis=(1, 2), keepdims=True)
    flat = is_flat(maps)
    scaled = np.divide(maps, top, out=np.zeros_like(maps), where=~flat[:, None, None])
    result = np.full_like(maps, np.nan)
    for k in range(len(maps)):
        others = ~flat & (pairs.finding == pairs.finding[k]) & (pairs.patient != pairs.patient[k])
        if others.any():
            result[k] = scaled[others].mean(axis=0)
    return result


def score_pairs(maps: dict[str, Map], pairs: BoxedPairs, size: int) -> Floats:
    """Return the scores of every pair.

    Returns
    -------
    ndarray of shape (n_pairs, 1 + len(MAPS) * len(SCORES))
        The chance of a random point, then `SCORES` of each of `MAPS`; NaN where undefined.
    """
    values = []
    for k, places in enumerate(pairs.places):
        truth = inside(places, size)
        row = [chance_of(truth, pairs.films[k])]
        for name in MAPS:
            if name == "average_map" and np.isnan(maps[name][k]).all():  # nothing to average is not a flat map
                row += [float("nan")] * len(SCORES)
            else:
                row += score_map(maps[name][k], truth)
        values.append(row)
    return np.array(values, np.float64)


def _replicates(values: Floats, pairs: BoxedPairs, n_findings: int, params: EvaluateParams) -> Replicates:
    """Return the mean of each column over each finding's pairs, finding by finding, with its resamples."""
    present = (pairs.finding[:, None] == np.arange(n_findings)).astype(np.float64)
    resamples = resample(pairs.patient, present, params)
    sums, counts = (_by_finding(each, present, resamples) for each in (np.nan_to_num(values), ~np.isnan(values)))
    return replicate(lambda weights: divide(sums @ weights, counts @ weights), resamples)


def _by_finding(values: NDArray[Any], present: Floats, resamples: Resamples) -> Floats:
    wide = present[:, :, None] * values[:, None, :]
    return patient_sums(wide.reshape(len(values), -1), resamples)


def _header(pairs: BoxedPairs, data: Processed, split: str, params: EvaluateParams) -> dict[str, Any]:
    return {
        "split": split,
        "confidence": params.confidence,
        "resamples": params.resamples,
        "size": data.size,
        "tolerance": 0,
        "cuts": list(CUTS),
        "n_boxes": sum(map(len, pairs.places)),
        "n_pairs": len(pairs.image),
        "n_images": len(np.unique(pairs.image)),
        "n_patients": len(np.unique(pairs.patient)),
        "n_unlabelled": pairs.unlabelled,
        "left_out": pairs.left_out,
    }


def _counts(
    pairs: BoxedPairs, finding: int, flat: NDArray[np.bool_], flat_shuffled: NDArray[np.bool_]
) -> dict[str, int]:
    here = pairs.finding == finding
    return {
        "n_boxes": sum(len(places) for places, own in zip(pairs.places, here, strict=True) if own),
        "n_images": int(here.sum()),
        "n_patients": len(np.unique(pairs.patient[here])),
        "n_flat": int(flat[here].sum()),
        "n_flat_shuffled": int(flat_shuffled[here].sum()),
    }


def _entry(columns: list[Replicates], n_patients: int) -> dict[str, Any]:
    """Name the columns of `score_pairs`, and add how far the model's pointing is above what it has to beat."""
    chance, blocks = columns[0], {name: columns[1 + k * len(SCORES) :] for k, name in enumerate(MAPS)}
    pointing = {"chance": chance} | {name: block[0] for name, block in blocks.items()}
    entry = _block(blocks["model"], n_patients) | chance.estimate().as_dict("chance")
    for name in ("chance", *MAPS[1:]):
        entry |= (pointing["model"] - pointing[name]).estimate().as_dict(f"above_{name}")
    return entry | {name: _block(blocks[name], n_patients) for name in MAPS[1:]}


def _block(columns: list[Replicates], n_patients: int) -> dict[str, Any]:
    """Name the scores of one set of maps; shares without spread get exact bounds over the patients (`printed`)."""
    single: dict[str, Any] = {}
    for name, column in zip(SCORES[:2], columns, strict=False):
        single |= printed(name, column.estimate(), n_patients, column.confidence)
    single |= columns[2].estimate().as_dict(SCORES[2])  # a count, not a share
    return single | {
        "iou": [_overlap(t, column) for t, column in zip(IOU, columns[3:], strict=False)],
        "iobb": [_overlap(t, column) for t, column in zip(IOBB, columns[3 + len(IOU) :], strict=False)],
    }


def _overlap(threshold: float, column: Replicates) -> dict[str, float]:
    found = column.estimate()
    return {
        "threshold": threshold,
        "localised": found.value,
        "localised_ci_low": found.ci_low,
        "localised_ci_high": found.ci_high,
    }
