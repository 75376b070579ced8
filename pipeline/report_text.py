"""The words of the report: the result in a sentence, warnings, the protocol, captions."""

import shlex
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.findings import readable
from pipeline.params import Params, SplitParams
from pipeline.report_about import ABOUT

FEW = 10
"""Fewer positive (or negative) test images than this are named in a warning: an interval then rests on single films."""

LOSSES = {
    "focal": "focal loss (Lin et al., ICCV 2017)",
    "binary_crossentropy": "binary cross-entropy",
}
VIEWS = {"PA": "PA view", "AP": "AP view", "L": "lateral view", "": "view unknown"}


@dataclass(frozen=True)
class Notice:
    """A warning at the head of the page."""

    title: str
    text: str


def number(value: float | None) -> str:
    """Print a score with three decimals; null, which is NaN, is never printed as a number."""
    return "undefined" if value is None else f"{value:.3f}"


def percent(share: float | None) -> str:
    """Print a share with one decimal."""
    return "–" if share is None else f"{100 * share:.1f}%"


def level(confidence: float) -> str:
    """Print a confidence level, such as `95%`."""
    return f"{round(100 * confidence, 6):g}%"


def interval(scores: dict[str, Any], prefix: str = "") -> str:
    """Print the bounds of a score's interval; 'undefined' if there is none."""
    low, high = scores[f"{prefix}ci_low"], scores[f"{prefix}ci_high"]
    return "undefined" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def listed(names: list[str]) -> str:
    """Join words as prose does: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def headline(metrics: dict[str, Any], split: SplitParams) -> str:
    """Say the result in one sentence: mean AUC, interval, findings, images, patients, protocol."""
    test, macro = metrics["test"], metrics["test"]["macro"]
    names = list(test["findings"])
    size = f"{test['images']:,} images of {test['patients']:,} patients; protocol: {protocol(split)}."
    if macro["auc"] is None:
        return f"Test AUC is undefined for every finding; {size}"
    subject = "Mean test AUC" if len(names) > 1 else f"Test AUC for {readable(names[0]).lower()}"
    of = "" if macro["n_findings"] == len(names) else f"{macro['n_findings']} of "
    over = f" over {of}{len(names)} findings" if len(names) > 1 else ""
    bounds = f"({level(metrics['confidence'])} interval {interval(macro)})"
    return f"{subject} {number(macro['auc'])} {bounds}{over}; {size}"


def protocol(split: SplitParams) -> str:
    """Name the protocol in a few words."""
    return {
        "patient": f"whole patients, {_ratio(split.train, split.val, split.test)}",
        "official": "NIH's official test list, validation by whole patients",
        "folder": "the archive's own test folder, validation by whole patients",
    }[split.protocol]


def explain_protocol(split: SplitParams) -> str:
    """Explain the protocol in a few sentences."""
    whole = (
        "All images of a patient, and of patients who share an identical picture, are on the same side, so the "
        "model is never tested on somebody it has seen."
    )
    if split.protocol == "patient":
        ratio = _ratio(split.train, split.val, split.test)
        return (
            f"Whole patients were drawn for training, validation and test in the proportion {ratio} of the images, so "
            f"that each finding is about as frequent in each. {whole}"
        )
    source = "NIH's official list" if split.protocol == "official" else "the archive's own test folder"
    return (
        f"The test images are those of {source}; training and validation were drawn from the rest by whole patients, "
        f"in the proportion {_ratio(split.train, split.val)}. {whole} Results under another protocol are not "
        "comparable."
    )


def notices(metrics: dict[str, Any], source: str) -> list[Notice]:
    """Collect the warnings that are due, the most serious first; the last one always stands."""
    found = []
    if source == "simulated":
        found.append(
            Notice(
                "Simulated data",
                "The images were drawn by a program. A model trained on these knows nothing of real chests; the "
                "figures show that the pipeline works, and nothing else.",
            )
        )
    found += [*_undefined(metrics), *_few(metrics), *_lost_resamples(metrics)]
    found.append(
        Notice(
            "For research only, not a medical device",
            "The model has not been validated for clinical use and must not be used for diagnosis or treatment.",
        )
    )
    return found


def why_undefined(scores: dict[str, Any], images: int) -> str:
    """Say why a finding has no AUC."""
    if not scores["n_positive"] and not scores["n_negative"]:
        return f"its label is unknown in all {images:,} test images"
    kind = "positive" if not scores["n_positive"] else "negative"
    return f"no {kind} image in the test split"


def score_with_interval(scores: dict[str, Any], images: int) -> str:
    """Print a finding's AUC with its interval, or why it has none."""
    if scores["auc"] is None:
        return f"AUC undefined: {why_undefined(scores, images)}"
    return f"AUC {number(scores['auc'])} ({interval(scores)})"


def not_above_chance(metrics: dict[str, Any]) -> str:
    """List the findings whose interval reaches down to 0.5, or nothing."""
    rows = metrics["test"]["findings"]
    names = [readable(name) for name, row in rows.items() if row["ci_low"] is not None and row["ci_low"] <= 0.5]
    return listed(names) if names else ""


def validation(metrics: dict[str, Any]) -> str:
    """Print the validation split's mean AUC with its interval, or nothing if it is not known."""
    macro = metrics.get("val", {}).get("macro", {})
    return f"{number(macro['auc'])} ({interval(macro)})" if macro.get("auc") is not None else ""


def about_data(trained: Params) -> str:
    """Describe the data set for someone who does not know it."""
    return ABOUT["simulated" if trained.download.source == "simulated" else trained.dataset.adapter]


def caption(row: "pd.Series[Any]", findings: list[str]) -> str:
    """Name the findings and the view of one image, never the image or the patient."""
    present = [readable(name) for name in findings if not pd.isna(row[name]) and row[name] == 1]
    unknown = sum(bool(pd.isna(row[name])) for name in findings)
    words = ", ".join([present[0], *(name.lower() for name in present[1:])]) if present else "No finding"
    return f"{words}{f' ({unknown} unknown)' if unknown else ''}; {VIEWS[row['view']]}"


def commands(code_version: str, trained: Params) -> list[str]:
    """Return the shell commands that repeat the run."""
    commit = code_version.removesuffix("-dirty")
    train = f"make train PRESET={shlex.quote(trained.dataset.preset)}"
    if trained.download.source == "local":
        train += " ARCHIVE=/path/to/the/archive"
    return [*([] if commit == "no git" else [f"git checkout {shlex.quote(commit)}"]), train]


def code_caveat(code_version: str) -> str:
    """Say where the recorded version does not pin the code, or nothing."""
    if code_version == "no git":
        return "The code was not under version control, so the commit is not known."
    if code_version.endswith("-dirty"):
        return "The code had changes that were not committed: the commit alone does not give the same code."
    return ""


def _undefined(metrics: dict[str, Any]) -> list[Notice]:
    test = metrics["test"]
    reasons = [
        f"{readable(name)} ({why_undefined(row, test['images'])})"
        for name, row in test["findings"].items()
        if row["auc"] is None
    ]
    if not reasons:
        return []
    text = f"There is no AUC for {listed(reasons)}. The mean is over the other findings."
    return [Notice("Undefined findings", text if test["macro"]["n_findings"] else text.partition(" The mean")[0])]


def _few(metrics: dict[str, Any]) -> list[Notice]:
    few = []
    for name, row in metrics["test"]["findings"].items():
        less = min(("n_positive", "n_negative"), key=lambda key: row[key])
        if row["auc"] is not None and row[less] < FEW:
            few.append(f"{readable(name)} ({row[less]} {less.removeprefix('n_')})")
    if not few:
        return []
    text = f"Fewer than {FEW} positive or negative test images: {listed(few)}. Single films decide these scores."
    return [Notice("Very few cases", text)]


def _lost_resamples(metrics: dict[str, Any]) -> list[Notice]:
    wanted = metrics["resamples"]
    lost = [
        f"{readable(name)} ({row['n_resamples']:,})"
        for name, row in metrics["test"]["findings"].items()
        if row["auc"] is not None and row["n_resamples"] < wanted
    ]
    if not lost:
        return []
    text = (
        f"Fewer than the requested {wanted:,} resamples held both classes for {listed(lost)}. Their intervals rest "
        "on these alone."
    )
    return [Notice("Intervals that rest on fewer resamples", text)]


def _ratio(*shares: float) -> str:
    """Print shares as small whole numbers, such as 7:2:1."""
    for scale in (10, 100, 1000):
        parts = [share * scale for share in shares]
        if all(abs(part - round(part)) < 1e-6 for part in parts):
            return ":".join(str(round(part)) for part in parts)
    return ":".join(f"{share:g}" for share in shares)
