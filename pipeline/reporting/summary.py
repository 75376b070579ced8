"""The head of the page: the result in a sentence, the key figures, and the warnings that are due."""

from dataclasses import dataclass
from typing import Any

from pipeline.findings import readable
from pipeline.params import SplitParams
from pipeline.reporting.text import bounds, counted, estimate, interval, level, listed, number, prose, why_undefined

FEW = 10
"""Fewer positive (or negative) test images than this are named in a warning: an interval then rests on single films."""

Document = dict[str, Any] | None
"""A JSON file of `evaluate`; None where there is nothing to report."""


@dataclass(frozen=True)
class Notice:
    """A warning at the head of the page."""

    title: str
    text: str


@dataclass(frozen=True)
class KeyFigure:
    """A figure at the head of the page: what it is, its value, and what it rests on."""

    label: str
    value: str
    basis: str


def headline(metrics: dict[str, Any], protocol: str) -> str:
    """Say the result in one sentence: mean AUC, interval, findings, images, patients, protocol.

    Parameters
    ----------
    metrics : dict
        `metrics.json`.
    protocol : str
        How the test images were chosen, in a few words; empty where that is not known.
    """
    test, macro = metrics["test"], metrics["test"]["macro"]
    names = list(test["findings"])
    size = f"{counted(test['images'], 'image')} of {counted(test['patients'], 'patient')}"
    size += f"; protocol: {protocol}." if protocol else "."
    if macro["auc"] is None:
        return f"Test AUC is undefined for every finding; {size}"
    subject = "Mean test AUC" if len(names) > 1 else f"Test AUC for {prose(names[0])}"
    of = "" if macro["n_findings"] == len(names) else f"{macro['n_findings']} of "
    over = f" over {of}{len(names)} findings" if len(names) > 1 else ""
    return f"{subject} {number(macro['auc'])} ({level(metrics['confidence'])} interval {interval(macro)}){over}; {size}"


def key_figures(metrics: dict[str, Any], floor: Document) -> list[KeyFigure]:
    """Return the figures that say most: against the floor, against chance, and whether the probabilities hold."""
    test, shown = metrics["test"], []
    macro, names = test["macro"], list(test["findings"])
    defined = [name for name in names if test["findings"][name]["auc"] is not None]
    if not defined:
        return []
    mean = "mean of " if len(names) > 1 else ""
    basis = counted(macro["n_findings"], "finding")
    if has_floor(floor):
        assert floor is not None
        over = f"{mean}{counted(floor['macro']['n_findings'], 'finding')}; floor {number(floor['macro']['auc'])}"
        shown.append(
            KeyFigure("AUC above the floor", estimate(floor["macro_difference"], "difference", plus=True), over)
        )
    if len(names) > 1:
        better = f"{len(defined) - len(not_above_chance(metrics))} of {len(names)}"
        shown.append(KeyFigure("Shown to be better than chance", better, "findings with an interval above 0.5"))
    else:
        row = test["findings"][names[0]]
        counts = f"{counted(row['n_positive'], 'image')} with it, {row['n_negative']:,} without"
        shown.append(KeyFigure("Average precision", estimate(row, "average_precision"), counts))
    for key, label in (("calibrated_ece", "Calibration error, calibrated"), ("ece", "Calibration error, raw output")):
        if macro.get(key) is not None:
            shown.append(KeyFigure(label, estimate(macro, key), f"{mean}{basis}"))
            break
    return shown


def has_floor(floor: Document) -> bool:
    """Say whether there is a metadata floor with at least one defined AUC."""
    return bool(floor and floor.get("macro", {}).get("auc") is not None)


def protocol(split: SplitParams) -> str:
    """Name the protocol in a few words."""
    return {
        "patient": f"whole patients, {ratio(split.train, split.val, split.test)}",
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
        parts = ratio(split.train, split.val, split.test)
        return (
            f"Whole patients were drawn for training, validation and test in the proportion {parts} of the images, so "
            f"that each finding is about as frequent in each. {whole}"
        )
    source = "NIH's official list" if split.protocol == "official" else "the archive's own test folder"
    return (
        f"The test images are those of {source}; training and validation were drawn from the rest by whole patients, "
        f"in the proportion {ratio(split.train, split.val)}. {whole} Results under another protocol are not "
        "comparable."
    )


def notices(metrics: dict[str, Any], source: str, floor: Document = None) -> list[Notice]:
    """Collect the warnings that are due, the most serious first; the last one always stands.

    Parameters
    ----------
    metrics : dict
        `metrics.json`.
    source : str
        `download.source`; `simulated` is warned of.
    floor : dict or None
        `floor.json`.
    """
    found = []
    if source == "simulated":
        found.append(
            Notice(
                "Simulated data",
                "The images were drawn by a program. A model trained on these knows nothing of real chests; the "
                "figures show that the pipeline works, and nothing else.",
            )
        )
    found += [*_not_above_floor(floor), *_undefined(metrics), *_few(metrics), *_lost_resamples(metrics)]
    found.append(
        Notice(
            "For research only, not a medical device",
            "The model has not been validated for clinical use and must not be used for diagnosis or treatment.",
        )
    )
    return found


def not_above_chance(metrics: dict[str, Any]) -> list[str]:
    """Return the findings whose interval reaches down to 0.5 or is undefined though the AUC is not."""
    rows = metrics["test"]["findings"]
    return [
        readable(name)
        for name, row in rows.items()
        if row["auc"] is not None and (row["ci_low"] is None or row["ci_low"] <= 0.5)
    ]


def ratio(*shares: float) -> str:
    """Print shares as small whole numbers, such as 7:2:1."""
    for scale in (10, 100, 1000):
        parts = [share * scale for share in shares]
        if all(abs(part - round(part)) < 1e-6 for part in parts):
            return ":".join(str(round(part)) for part in parts)
    return ":".join(f"{share:g}" for share in shares)


def _not_above_floor(floor: Document) -> list[Notice]:
    if not has_floor(floor):
        return []
    assert floor is not None
    low = bounds(floor["macro_difference"], "difference")[0]
    if low is not None and low > 0:
        return []
    text = (
        f"The model's AUC minus that of a logistic regression which sees no pixel is "
        f"{estimate(floor['macro_difference'], 'difference', plus=True)}, "
        f"{counted(floor['macro']['n_findings'], 'finding')}: it is not shown that the images add anything."
    )
    return [Notice("Not shown to be better than the floor", text)]


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
