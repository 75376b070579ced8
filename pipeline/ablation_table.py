"""The table of an ablation: each variant's validation AUROC, and its paired difference from the baseline."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.files import atomic_open, read_json, write_text
from pipeline.params import EvaluateParams, Params
from pipeline.predictions import arrays_of, findings_of_predictions
from pipeline.repeats import summary
from pipeline.statistics.bootstrap import Replicates, Resamples, replicate, resample, stack
from pipeline.statistics.ranks import rank_statistic

BASELINE = "baseline"
_SPLIT = "val"
_PAGE = """\
# Ablation

Mean AUROC over {findings} findings of the validation split of {preset}: {images} images of {patients} patients. In each
row one parameter differs from the baseline; the data, the split and the seed are the same.

| variant | changed | AUROC ({level} interval) | difference from the baseline ({level} interval) | over seeds |
| --- | --- | --- | --- | --- |
{rows}

- A difference above 0 means that the variant is better. Its interval is paired: both models are scored on the same
  {resamples} resamples of the patients ({kind} bootstrap).
- These are validation figures, because they serve to choose parameters. The best epoch was chosen on the same images,
  so that all of them are somewhat too good. The test split has no part in this page.
- {seeds}
- The intervals are not adjusted for the number of variants.
{remarks}"""


def write_table(out: Path, changes: Mapping[str, str], params: Params, remarks: Sequence[str]) -> None:
    """Write `ablation.csv` and `ablation.md` from the results that lie in `out`.

    Parameters
    ----------
    out : Path
        Holds `baseline/` and a folder for each variant, with `predictions.csv` and `training.json`.
    changes : mapping of str to str
        Variant to its changed parameter, as `loss.name=focal`.
    params : Params
        Of the baseline; section `evaluate` says how intervals are computed.
    remarks : sequence of str
        What is left out or failed, and why.
    """
    table = compare(out, changes, params.evaluate)
    with atomic_open(out / "ablation.csv") as handle:
        table.to_csv(handle, index=False, lineterminator="\n", float_format="%.9g")
    write_text(out / "ablation.md", markdown(table, params, remarks))


def compare(out: Path, changes: Mapping[str, str], params: EvaluateParams) -> pd.DataFrame:
    """Score the baseline and the variants on the same resamples of the validation split's patients.

    Returns
    -------
    DataFrame
        A row each: `variant`, `change`, `auc` (the mean over the findings where it is defined) and `difference`
        (the variant's less the baseline's; NaN for the baseline), each with its intervals as
        `pipeline.statistics.bootstrap.Estimate.as_dict` names them, then the counts of images, patients, findings
        and seeds, and mean and standard deviation of `training.json`'s validation AUROC over the seeds.
    """
    base = val_rows(out / BASELINE / "predictions.csv")
    findings = findings_of_predictions(base)
    labels, _ = arrays_of(base, findings)
    resamples = resample(base["patient_id"].to_numpy(str), labels, params)
    counts = {"images": len(base), "patients": resamples.n_patients}
    reference, rows = None, []
    for name, change in {BASELINE: "", **changes}.items():
        single = aurocs(same_images(base, val_rows(out / name / "predictions.csv"), name), findings, resamples)
        macro = single.mean()
        reference = reference or macro
        difference = (macro - reference).estimate().as_dict("difference")
        if name == BASELINE:  # from itself: not a result
            difference = dict.fromkeys(difference, float("nan"))
        defined = {"n_findings": int((~np.isnan(single.point)).sum())}
        values = macro.estimate().as_dict("auc") | difference | counts | defined | over_seeds(out / name)
        rows.append({"variant": name, "change": change, **values})
    return pd.DataFrame(rows)


def val_rows(path: Path) -> pd.DataFrame:
    """Return the validation images of a predictions table."""
    table = pd.read_csv(path, dtype={"image_id": str, "patient_id": str, "split": str})
    return table[table["split"] == _SPLIT].reset_index(drop=True)


def same_images(base: pd.DataFrame, rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a variant's rows in the order of the baseline's; refuse other images, patients or labels."""
    ordered = base[["image_id"]].merge(rows, on="image_id", how="left", validate="one_to_one", indicator=True)
    known = [column for column in base.columns if column == "patient_id" or column.startswith("y_")]
    if len(rows) != len(base) or (ordered["_merge"] != "both").any() or not ordered[known].equals(base[known]):
        raise UserError(
            f"variant {name} and the baseline have other validation images, patients or labels: remove its folder and "
            "its experiment (`dvc exp remove`), then run this again"
        )
    return ordered.drop(columns="_merge")


def aurocs(rows: pd.DataFrame, findings: list[str], resamples: Resamples) -> Replicates:
    """Return the AUROC of each finding, NaN where it is undefined."""
    labels, probabilities = arrays_of(rows, findings)

    def of_one(known: NDArray[np.float64], scores: NDArray[np.float64]) -> Replicates:
        return replicate(rank_statistic(known, scores, resamples), resamples)[[0]]

    return stack([of_one(labels[:, k], probabilities[:, k]) for k in range(len(findings))])


def over_seeds(folder: Path) -> dict[str, float]:
    """Return how many seeds were trained, and mean and standard deviation of their best validation AUROC."""
    values = summary([repeat["val_auc"] for repeat in read_json(folder / "training.json")["repeats"]])
    return {"seeds": values["n"], "seeds_auc_mean": values["mean"], "seeds_auc_sd": values["sd"]}


def markdown(table: pd.DataFrame, params: Params, remarks: Sequence[str]) -> str:
    """Return the table as a page, with what one must know to read it."""
    first = table.iloc[0]
    return _PAGE.format(
        findings=first["n_findings"],
        preset=params.dataset.preset,
        images=first["images"],
        patients=first["patients"],
        level=f"{100 * params.evaluate.confidence:g} %",
        rows="\n".join(_line(row) for row in table.to_dict("records")),
        resamples=params.evaluate.resamples,
        kind=params.evaluate.interval,
        seeds=_about_seeds(int(table["seeds"].min())),
        remarks="".join(f"- {remark}.\n" for remark in remarks),
    )


def _line(row: dict[Any, Any]) -> str:
    seeds = f"{row['seeds_auc_mean']:.4f}, sd {row['seeds_auc_sd']:.4f}, {row['seeds']:.0f} seeds"
    return (
        "| "
        + " | ".join(
            [
                row["variant"],
                f"`{row['change']}`" if row["change"] else "",
                _interval(row, "auc", "", ".4f"),
                _interval(row, "difference", "difference_", "+.4f") if row["change"] else "",
                seeds if row["seeds"] > 1 else "1 seed",
            ]
        )
        + " |"
    )


def _interval(row: dict[Any, Any], name: str, prefix: str, form: str) -> str:
    if np.isnan(row[name]):
        return "undefined"
    return f"{row[name]:{form}} ({row[prefix + 'ci_low']:{form}} to {row[prefix + 'ci_high']:{form}})"


def _about_seeds(seeds: int) -> str:
    what = "The intervals say what other patients would change, not what another seed would"
    if seeds > 1:
        return f"{what}; for that, compare the differences with the standard deviation over the {seeds} seeds."
    return f"{what}. One seed cannot tell a parameter from luck: set `train.repeats` to 3 or more to see the spread."
