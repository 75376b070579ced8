"""The tables of the report: rows of strings that are ready to print, no computation of scores."""

from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import pandas as pd

from pipeline.findings import readable
from pipeline.manifest import SPLITS
from pipeline.params import Params
from pipeline.params_file import as_dict
from pipeline.quarantine import MEANINGS
from pipeline.report_text import interval, number, percent, why_undefined
from pipeline.tracking import without_secrets

_MOST_REASONS = 12
_SPLIT_NAMES = {"train": "Training", "val": "Validation", "test": "Test"}


def inclusion(ingest: dict[str, Any], split: dict[str, Any]) -> dict[str, Any]:
    """Return the flow from files to splits.

    Returns
    -------
    dict
        `examined`, `included`, `patients`, `splits` (name, images, patients) and four lists of (reason, count):
        `quarantined` (a fault in a file or row), `suspicious` (used, but should be looked at), `left_out` (part of
        the archive as published, such as its second copy of itself) and `unused` (in no split). Only the most
        frequent reasons are named, the rest summed.
    """
    return {
        "examined": ingest["images"] + ingest["quarantined"],
        "quarantined_total": ingest["quarantined"],
        "quarantined": _most(_by_code(ingest["quarantine_reasons"])),
        "suspicious_total": ingest["suspicious"],
        "suspicious": _most(_by_code(ingest["suspicious_reasons"])),
        "left_out": _most(ingest["left_out"]),
        "included": ingest["images"],
        "patients": ingest["patients"],
        "unused": _most(split["left_out_reasons"]),
        "splits": [(_SPLIT_NAMES[name], split[name]["images"], split[name]["patients"]) for name in SPLITS],
    }


def by_split(index: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each split under its readable name."""
    return {_SPLIT_NAMES[name]: index[index["split"] == name] for name in SPLITS}


def characteristics(groups: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Describe groups of images: how many, of how many patients, view, sex and age.

    Returns
    -------
    dict
        `columns` (names of the groups) and `rows` (label, one string per group). Sex and age are counted per image;
        age as median, quartiles and range in years. Words that occur in no group have no row.
    """
    total = sum(len(table) for table in groups.values())
    rows = [
        ("Images", [f"{len(table):,}" for table in groups.values()]),
        ("Patients", [f"{table['patient_id'].nunique():,}" for table in groups.values()]),
    ]
    if len(groups) > 1:
        rows.insert(1, ("Share of the images", [percent(len(table) / total) for table in groups.values()]))
    for column, words in (
        ("view", {"PA": "View: PA", "AP": "View: AP", "L": "View: lateral", "": "View: unknown"}),
        ("sex", {"F": "Sex: female", "M": "Sex: male", "": "Sex: unknown"}),
    ):
        for word, label in words.items():
            counts = [int((table[column] == word).sum()) for table in groups.values()]
            if any(counts):
                rows.append((label, [_share(n, len(t)) for n, t in zip(counts, groups.values(), strict=True)]))
    return {"columns": list(groups), "rows": rows + _ages(groups)}


def prevalence(split: dict[str, Any], findings: list[str]) -> dict[str, Any]:
    """Return each finding's positives and prevalence among the images where it is known, per split."""
    rows = []
    for name in findings:
        cells = []
        for part in SPLITS:
            counts = split[part]["findings"][name]
            cells.append((f"{counts['positive']:,}", percent(counts["prevalence"]), f"{counts['known']:,}"))
        rows.append((readable(name), cells))
    all_known = all(
        split[part]["findings"][name]["known"] == split[part]["images"] for part in SPLITS for name in findings
    )
    return {"columns": [_SPLIT_NAMES[name] for name in SPLITS], "rows": rows, "all_known": all_known}


def results(metrics: dict[str, Any], mark: Callable[[dict[str, Any]], dict[str, float] | None]) -> list[dict[str, Any]]:
    """Return the rows of the result table, each finding and then the mean.

    Parameters
    ----------
    metrics : dict
        `metrics.json`; null is NaN, the undefined.
    mark : callable
        From scores to the geometry of their dot and interval.
    """
    test = metrics["test"]
    rows = [
        {
            **_scores(scores),
            "name": readable(name),
            "mark": mark(scores),
            "counts": [f"{scores[key]:,}" for key in ("n_positive", "n_negative", "n_unknown")],
            "undefined": why_undefined(scores, test["images"]) if scores["auc"] is None else "",
            "mean": False,
        }
        for name, scores in test["findings"].items()
    ]
    macro = test["macro"]
    mean = {
        "name": f"Mean of {macro['n_findings']} findings",
        "mark": mark(macro),
        "counts": ["", "", ""],
        "mean": True,
    }
    undefined = "no finding is defined" if macro["auc"] is None else ""
    # The mean of one finding is that finding, and a second row would only repeat it.
    return rows if len(rows) == 1 else [*rows, {**_scores(macro), **mean, "undefined": undefined}]


def facts(training: dict[str, Any]) -> list[tuple[str, str]]:
    """Return code version, versions of libraries and the MLflow run."""
    rows = [("Code version", str(training["code_version"]))]
    rows += [(str(name), str(version)) for name, version in training["versions"].items()]
    if training["mlflow"]["run_id"]:
        rows.append(("MLflow run", str(training["mlflow"]["run_id"])))
    return rows


def hashes(computed: dict[str, str], meta: dict[str, Any], training: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the SHA-256 of data, model and results."""
    return [
        ("manifest", computed["manifest"]),
        ("splits", str(meta["splits_sha256"])),
        ("processed images (meta.json)", computed["processed images (meta.json)"]),
        ("model", str(training["model_sha256"])),
        ("predictions.csv", computed["predictions.csv"]),
        ("metrics.json", computed["metrics.json"]),
    ]


def parameters(trained: Params, params: Params) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return all parameters by section.

    Those of the model come from the file saved beside it, `evaluate` and `report` from the present ones, which came
    after it. Of an archive only the name is shown, and no user or password of a tracking server.
    """
    values = as_dict(trained) | {name: as_dict(params)[name] for name in ("evaluate", "report")}
    uri = values["tracking"]["uri"]
    values["tracking"]["uri"] = without_secrets(uri)
    values["download"]["archive"] = PurePath(values["download"]["archive"]).name
    return [(section, [(key, _plain(value)) for key, value in keys.items()]) for section, keys in values.items()]


def _by_code(counts: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Put the codes of the quarantine into words, with an example of what was found."""
    words = {code.value: meaning for code, meaning in MEANINGS.items()}
    return {f"{words.get(code, code)} (such as: {row['example']})": row["count"] for code, row in counts.items()}


def _most(reasons: dict[str, int]) -> list[tuple[str, int]]:
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[_MOST_REASONS:])
    return ordered[:_MOST_REASONS] + ([("other reasons", rest)] if rest else [])


def _ages(groups: dict[str, pd.DataFrame]) -> list[tuple[str, list[str]]]:
    ages = [table["age"].dropna() for table in groups.values()]
    unknown = [int(table["age"].isna().sum()) for table in groups.values()]
    rows: list[tuple[str, list[str]]] = []
    if any(len(age) for age in ages):
        cells = [[f"{age.quantile(q):.0f}" for q in (0.5, 0.25, 0.75, 0, 1)] if len(age) else None for age in ages]
        rows.append(("Age in years: median (quartiles)", [f"{c[0]} ({c[1]} to {c[2]})" if c else "–" for c in cells]))
        rows.append(("Age in years: range", [f"{c[3]} to {c[4]}" if c else "–" for c in cells]))
    if any(unknown):
        rows.append(("Age: unknown", [_share(n, len(t)) for n, t in zip(unknown, groups.values(), strict=True)]))
    return rows


def _scores(scores: dict[str, Any]) -> dict[str, str]:
    return {
        "auc": number(scores["auc"]),
        "interval": interval(scores),
        "precision": number(scores["average_precision"]),
        "precision_interval": interval(scores, "average_precision_"),
    }


def _share(count: int, total: int) -> str:
    return f"{count:,} ({percent(count / total)})" if total else "0"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if str(value) else "(empty)"
