"""How hard each finding of the simulated films is: AUROC against films without it, by thirds of severity.

    python benchmarks/difficulty.py [reports/predictions.csv] [--truth data/raw/truth.csv] [--split test]

The truth is what was drawn, not the label, which may be wrong on purpose (`simulate.label_noise`). The thirds are those
of all findings drawn in the data set together, so that a column means the same severities in every row. Each third is
compared with all films without the finding; films with it of another severity are left aside.

Intervals: 95 %, whole patients resampled, as in the report; none where fewer than ten patients have the finding, for
resampling so few shows less than the truth varies. A dash: no film of that third.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.findings import readable
from pipeline.params import EvaluateParams
from pipeline.predictions import arrays_of
from pipeline.predictions_file import load_predictions
from pipeline.statistics.bootstrap import Replicates, Resamples, replicate, resample, stack
from pipeline.statistics.comparisons import MIN_PATIENTS
from pipeline.statistics.intervals import Estimate
from pipeline.statistics.ranks import rank_statistic

COLUMNS = ("Image Index", "Finding", "Severity", "Drawn", "Labelled")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One finding, or the mean over all: AUROC of all its films, and of each third.

    Attributes
    ----------
    name : str
        The finding.
    scores : list of Estimate
        Of all severities, then of each third, mildest first.
    films, patients : list of int
        How many films show it, and of how many patients, in the same order; empty for the mean.
    """

    name: str
    scores: list[Estimate]
    films: list[int]
    patients: list[int]


def read_truth(path: Path) -> pd.DataFrame:
    """Read what `simulate` wrote about its findings.

    Raises
    ------
    UserError
        If the file is missing or has other columns.
    """
    try:
        table = pd.read_csv(path, dtype={"Image Index": str, "Finding": str})
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `cxr download` with download.source simulated writes it") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no table: {error}") from None
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise UserError(f"{path} has no column {missing[0]}; needed are {', '.join(COLUMNS)}")
    return table


def severities(predictions: pd.DataFrame, findings: list[str], truth: pd.DataFrame) -> Floats:
    """Return the severity of each finding on each film, NaN where it is not drawn; shape (n_films, n_findings).

    Raises
    ------
    UserError
        If the labels of the two tables differ: then they are of two data sets.
    """
    films = predictions["image_id"]
    severity = _spread(truth[truth["Drawn"] == 1], "Severity", films, findings)
    labelled = truth[truth["Labelled"] == 1].assign(label=1.0)
    label = np.nan_to_num(_spread(labelled, "label", films, findings))
    known, _ = arrays_of(predictions, findings)
    differ = (label != known) & ~np.isnan(known)
    if differ.any():
        image = predictions["image_id"].iloc[int(np.flatnonzero(differ.any(axis=1))[0])]
        raise UserError(
            f"predictions and truth are not of the same films: the labels of {int(differ.any(axis=1).sum()):,} of "
            f"{len(differ):,} differ, first {image}; give the truth.csv of the data that were scored"
        )
    return severity


def _spread(rows: pd.DataFrame, values: str, films: pd.Series, findings: list[str]) -> Floats:
    """Return one column of the rows as (n_films, n_findings), NaN where there is no row."""
    table = rows.pivot_table(index="Image Index", columns="Finding", values=values)
    return table.reindex(index=films, columns=findings).to_numpy(np.float64)


def cuts_of(truth: pd.DataFrame) -> tuple[float, float]:
    """Return the severities that part all drawn findings of the data set into thirds."""
    low, high = np.quantile(truth.loc[truth["Drawn"] == 1, "Severity"], (1 / 3, 2 / 3))
    return float(low), float(high)


def levels(severity: Floats, cuts: tuple[float, float]) -> list[Floats]:
    """Return the labels of all severities and of each third: 1, 0 for films without the finding, NaN for the others."""
    absent = np.isnan(severity)
    third = np.searchsorted(cuts, severity, side="right")
    kept = [np.ones_like(absent), *(third == k for k in range(3))]
    return [np.where(absent, 0.0, np.where(inside, 1.0, np.nan)) for inside in kept]


def rows_of(predictions: pd.DataFrame, findings: list[str], truth: pd.DataFrame, params: EvaluateParams) -> list[Row]:
    """Score every finding; the mean over those that have an AUROC stands first."""
    labels = levels(severities(predictions, findings, truth), cuts_of(truth))
    _, probabilities = arrays_of(predictions, findings)
    resamples = resample(predictions["patient_id"].to_numpy(str), labels[0], params)
    scored = [stack([_auroc(y[:, k], probabilities[:, k], resamples) for k in range(len(findings))]) for y in labels]
    rows = [Row("Mean", [one.mean().estimate() for one in scored], [], [])]
    for k, name in enumerate(findings):
        present = [y[:, k] == 1 for y in labels]
        films = [int(one.sum()) for one in present]
        patients = [len(np.unique(resamples.patient[one])) for one in present]
        rows.append(Row(name, [one.estimate(k) for one in scored], films, patients))
    return rows


def _auroc(labels: Floats, probabilities: Floats, resamples: Resamples) -> Replicates:
    return replicate(rank_statistic(labels, probabilities, resamples), resamples)[[0]]


def markdown(rows: list[Row], cuts: tuple[float, float]) -> str:
    """Return the table; counts are films / patients."""
    names = (
        "all",
        f"mild, below {cuts[0]:.2f}",
        f"moderate, to {cuts[1]:.2f}",
        f"gross, from {cuts[1]:.2f}",
    )
    lines = [f"| finding | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
    for row in rows:
        enough = [count >= MIN_PATIENTS for count in row.patients] or [True] * len(row.scores)
        cells = [cell(score, interval=many) for score, many in zip(row.scores, enough, strict=True)]
        counts = [f"; {f} / {p}" for f, p in zip(row.films, row.patients, strict=True)] or [""] * len(cells)
        joined = " | ".join(text + count for text, count in zip(cells, counts, strict=True))
        lines.append(f"| {readable(row.name)} | {joined} |")
    return "\n".join(lines)


def cell(score: Estimate, *, interval: bool) -> str:
    """Return a score, perhaps with its interval; a dash where it is undefined."""
    if np.isnan(score.value):
        return "–"
    return f"{score.value:.3f}" if not interval else f"{score.value:.3f} ({score.ci_low:.3f} to {score.ci_high:.3f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, nargs="?", default=Path("reports/predictions.csv"))
    parser.add_argument("--truth", type=Path, default=Path("data/raw/truth.csv"))
    parser.add_argument("--split", choices=("val", "test"), default="test")
    args = parser.parse_args()
    try:
        loaded, truth = load_predictions(args.predictions), read_truth(args.truth)
        table = loaded.table[loaded.table["split"] == args.split].reset_index(drop=True)
        findings = [name for name in loaded.findings if name in set(truth["Finding"])]
        if not len(table) or not findings:
            raise UserError(f"{args.predictions} has no film of the split {args.split}, or no finding of {args.truth}")
        rows = rows_of(table, findings, truth, EvaluateParams())
    except UserError as error:
        parser.error(str(error))
    patients = table["patient_id"].nunique()
    print(f"{len(table):,} films of {patients:,} patients; AUROC (95% interval); films / patients with the finding\n")
    print(markdown(rows, cuts_of(truth)))


if __name__ == "__main__":
    main()
