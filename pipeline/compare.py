"""Command `compare`: two models on the same images, paired; who is better, by how much, and how sure that is."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.compare_text import printed, sentences
from pipeline.errors import UserError
from pipeline.files import sha256_file, without_nan, write_json, write_text
from pipeline.findings import in_order
from pipeline.params import EvaluateParams
from pipeline.predictions import arrays_of
from pipeline.predictions_columns import few
from pipeline.predictions_file import Patients, Predictions, load_predictions
from pipeline.progress import note
from pipeline.statistics.bootstrap import Replicates, resample
from pipeline.statistics.delong import delong
from pipeline.statistics.intervals import Floats
from pipeline.statistics.paired import SCORES, holm, mean_of, p_value, scores_of
from pipeline.statistics.scores import counts_of

_SHOWN = 3


def compare(
    a: Path, b: Path, params: EvaluateParams, labels: Path | None, patients: Patients, out: Path | None
) -> None:
    """Compare two predictions tables, print the result, and write it to `out` if that is given.

    Parameters
    ----------
    a, b : Path
        Tables as `pipeline.predictions_file.load_predictions` reads them.
    params : EvaluateParams
        The bootstrap.
    labels : Path, optional
        The labels of both.
    patients : {'column', 'nih'}
        Where the patient comes from.
    out : Path, optional
        Folder for `compare.json`, `compare.csv` and `compare.html`.

    Raises
    ------
    UserError
        If a table is faulty, or if the two have other images, patients or labels.
    """
    tables = load_predictions(a, labels, patients), load_predictions(b, labels, patients)
    for path, one in zip((a, b), tables, strict=True):
        for line in one.notes:
            note(f"{path}: {line}")
    first, second, findings = match(*tables, a, b)
    result = {
        "a": {"file": a.name, "sha256": sha256_file(a)},
        "b": {"file": b.name, "sha256": sha256_file(b)},
        "not_compared": in_order(list({*tables[0].findings, *tables[1].findings} - set(findings))),
        **without_nan(compare_tables(first, second, findings, params)),
    }
    result["sentences"] = sentences(result)
    print(printed(result))
    if out:
        write(result, out)


def match(a: Predictions, b: Predictions, name_a: Path, name_b: Path) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Return the test images of both tables in one order, and the findings that both have.

    Raises
    ------
    UserError
        If images, patients or labels differ, with the first of them, or no finding is in both.
    """
    first, second = (_test_rows(one, name) for one, name in ((a, name_a), (b, name_b)))
    for here, there, name, other in ((first, second, name_a, name_b), (second, first, name_b, name_a)):
        lone = here.loc[~here["image_id"].isin(there["image_id"]), "image_id"].tolist()
        if lone:
            raise UserError(
                f"{name}: {len(lone):,} of {len(here):,} images are not in {other}, first {few(lone)}; "
                "two models are compared on the same images only"
            )
    names = f"{name_a} and {name_b}"
    _refuse_other(first, first["patient_id"].ne(second["patient_id"]), f"{names} give another patient_id")
    findings = [name for name in a.findings if name in b.findings]
    if not findings:
        raise UserError(f"{names} have no finding in common: {few(a.findings, 20)} in one, {few(b.findings, 20)}")
    for finding in findings:
        y, z = first[f"y_{finding}"], second[f"y_{finding}"]
        _refuse_other(first, y.ne(z) & ~(y.isna() & z.isna()), f"{names} give another y_{finding}")
    return first, second, findings


def compare_tables(a: pd.DataFrame, b: pd.DataFrame, findings: list[str], params: EvaluateParams) -> dict[str, Any]:
    """Compare the probabilities of two tables with the same images, patients and labels, in the same order.

    Returns
    -------
    dict
        Counts; `macro` and `findings` with the scores of `a`, of `b`, and their `difference` (b minus a), each with
        intervals as `Estimate.as_dict` names them; each difference with `p_value` (`NAME_p_value` for scores other
        than the AUROC), and those of findings with `p_adjusted` (Holm, over the findings of one score). Where each
        patient has one image, `delong_p_value` stands beside. The means are over the findings that have an AUROC.
    """
    labels, _ = arrays_of(a, findings)
    resamples = resample(a["patient_id"].to_numpy(str), labels, params)
    scores = {
        name: scores_of(labels, arrays_of(table, findings)[1], resamples, params.bins)
        for name, table in (("a", a), ("b", b))
    }
    scores["difference"] = scores["b"] - scores["a"]
    once = len(a) == resamples.n_patients
    rows = {name: _finding(scores, k, labels[:, k]) for k, name in enumerate(findings)}
    _adjust(rows)
    if once:
        for k, name in enumerate(findings):
            pair = (table[f"p_{name}"].to_numpy(np.float64) for table in (a, b))
            rows[name]["difference"]["delong_p_value"] = delong(labels[:, k], *pair).p_value()
    undefined = [name for name, row in rows.items() if np.isnan(row["difference"]["auc"])]
    return {
        "split": "test",
        "images": len(a),
        "patients": resamples.n_patients,
        "one_image_each": once,
        "confidence": params.confidence,
        "resamples": params.resamples,
        "interval": params.interval,
        "seed": params.seed,
        "least_p_value": 2 / (params.resamples + 1),
        "macro": {
            **{side: _means(scores[side], len(findings), tested=side == "difference") for side in scores},
            "n_findings": len(findings) - len(undefined),
            "undefined": ", ".join(undefined),
        },
        "findings": rows,
    }


def write(result: dict[str, Any], out: Path) -> None:
    """Write `compare.json`, `compare.csv` (a row for each finding and score) and the page `compare.html`."""
    from pipeline.compare_page import render

    write_json(out / "compare.json", result)
    write_text(out / "compare.csv", rows_of(result).to_csv(index=False, lineterminator="\n", float_format="%.9g"))
    write_text(out / "compare.html", render(result))
    note(f"comparison in {out / 'compare.html'}")


def rows_of(result: dict[str, Any]) -> pd.DataFrame:
    """Return the result as a table, `finding` 'mean' first; empty cells are undefined."""
    rows = []
    for name, row in {"mean": result["macro"], **result["findings"]}.items():
        for score in SCORES:
            difference, prefix = row["difference"], "" if score == "auc" else f"{score}_"
            rows.append(
                {
                    "finding": name,
                    "score": score,
                    "a": row["a"][score],
                    "b": row["b"][score],
                    "difference": difference[score],
                    **{bound: difference[prefix + bound] for bound in ("ci_low", "ci_high", "p_value")},
                    "p_adjusted": difference.get(f"{prefix}p_adjusted"),
                    "delong_p_value": difference.get("delong_p_value") if score == "auc" else None,
                    "n_positive": row.get("n_positive"),
                    "n_negative": row.get("n_negative"),
                }
            )
    return pd.DataFrame(rows).astype({"n_positive": "Int64", "n_negative": "Int64"})


def _test_rows(predictions: Predictions, path: Path) -> pd.DataFrame:
    table = predictions.table
    test = table[table["split"] == "test"]
    if not len(test):
        raise UserError(f"{path} has no row of the test split; models are compared on test images")
    if len(test) < len(table):
        note(f"{path}: compared are the {len(test):,} images of the test split, of {len(table):,}")
    return test.sort_values("image_id", kind="stable").reset_index(drop=True)


def _refuse_other(rows: pd.DataFrame, differ: pd.Series, what: str) -> None:
    if differ.any():
        images = few(rows.loc[differ, "image_id"].tolist(), _SHOWN)
        raise UserError(f"{what} for {int(differ.sum()):,} of {len(rows):,} images, first {images}")


def _finding(scores: dict[str, Replicates], k: int, labels: Floats) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for side, replicates in scores.items():
        row[side] = {}
        for position, score in enumerate(SCORES):
            row[side] |= _named(replicates, k * len(SCORES) + position, score, tested=side == "difference")
    return row | counts_of(labels)


def _means(scores: Replicates, n_findings: int, *, tested: bool) -> dict[str, float]:
    row: dict[str, float] = {}
    for position, score in enumerate(SCORES):
        row |= _named(mean_of(scores, position, n_findings), 0, score, tested=tested)
    return row


def _named(scores: Replicates, k: int, score: str, *, tested: bool) -> dict[str, float]:
    row = scores.estimate(k).as_dict(score)
    if tested:
        row["p_value" if score == "auc" else f"{score}_p_value"] = p_value(scores, k)
    return row


def _adjust(rows: dict[str, Any]) -> None:
    for score in SCORES:
        prefix = "" if score == "auc" else f"{score}_"
        adjusted = holm([row["difference"][f"{prefix}p_value"] for row in rows.values()])
        for row, value in zip(rows.values(), adjusted, strict=True):
            row["difference"][f"{prefix}p_adjusted"] = float(value)
