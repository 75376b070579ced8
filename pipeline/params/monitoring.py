"""The sections that say what the prediction log keeps, and when `cxr monitor` warns and alarms."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.params.types import STRICT, Count, Fraction, Seed

Severity = Literal["alarm", "warning", "note"]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class LogParams:
    """The prediction log of `cxr serve` and `cxr predict --log`: what a crash may lose, and how large it grows."""

    flush_seconds: Annotated[
        float, Field(ge=0.05, le=3600, description="rows wait at most so long before they are written")
    ] = 2.0
    batch: Annotated[Count, Field(le=100_000, description="rows that are written at once, without waiting")] = 200
    queue: Annotated[
        Count,
        Field(le=10_000_000, description="rows that may wait; more are dropped and counted, a request never waits"),
    ] = 20_000
    keep_days: Annotated[float, Field(gt=0, description="older rows are removed, with their labels")] = 400.0
    keep_rows: Annotated[Count, Field(description="the newest rows that are kept")] = 2_000_000

    def __post_init__(self) -> None:
        if self.batch > self.queue:
            raise ValueError(f"batch is {self.batch} and queue {self.queue}; batch must not be larger")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Rule:
    """What a change of some signals means, and who does what about it."""

    signals: Annotated[str, Field(min_length=1, description="pattern of names, as input/* or latency/model")]
    severity: Annotated[Severity, Field(description="the most that a change of them may raise")] = "alarm"
    least: Annotated[
        Fraction, Field(description="changes of a smaller size (KS, or difference of shares) are noted only")
    ] = 0.0
    owner: Annotated[str, Field(max_length=100, description="who is told")] = ""
    action: Annotated[str, Field(max_length=500, description="what to do")] = ""


def _rules() -> list[Rule]:
    return [
        Rule(
            signals="latency/*",
            owner="operations",
            action="Look at the machine's load, its memory and what was deployed last; compare with `cxr serve`'s "
            "metrics.",
        ),
        Rule(
            signals="gate/*",
            owner="operations",
            action="Look at the reasons of the rejections, and at the files that were sent: another sender, another "
            "export of the archive, colour, laterals.",
        ),
        Rule(
            signals="input/film_*",
            owner="radiology technology",
            action="Ask what changed at the detector or in the archive's export: exposure, size, inversion, another "
            "device. Do not use the outputs of inverted films.",
        ),
        Rule(
            signals="input/*",
            owner="radiology technology",
            action="If the films as decoded are unchanged, the preprocessing is broken: compare the deployed version "
            "and its manifest with the last that was quiet. Else see the films.",
        ),
        Rule(
            signals="prediction/*",
            owner="clinical lead",
            action="Ask whether the patients changed: prevalence, season, another ward. See films that were called, "
            "and get their truth into `cxr labels`.",
        ),
        Rule(
            signals="accuracy/*",
            owner="clinical lead",
            action="Stop acting on the findings that are named. See the labelled films, then `cxr retrain`.",
        ),
    ]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class MonitorParams:
    """What `cxr monitor` compares, and how often it may cry wolf (docs/monitoring.md)."""

    window: Annotated[Count, Field(ge=20, le=100_000, description="images in a window")] = 50
    hours: Annotated[
        float, Field(ge=0, le=10_000, description="above 0: windows are so many hours long, whatever they hold")
    ] = 0.0
    least: Annotated[Count, Field(ge=10, description="values that a signal needs in a window to be tested")] = 20
    alpha: Annotated[
        float, Field(gt=0, le=0.5, description="chance of any false alarm within `period` windows, at most")
    ] = 0.05
    period: Annotated[Count, Field(description="windows for which one alpha is spent; then it is spent anew")] = 200
    fdr: Annotated[
        float, Field(gt=0, le=0.5, description="false discovery rate of the newest window's warnings over all signals")
    ] = 0.05
    first_rows: Annotated[
        Count, Field(ge=100, description="first rows of the log that latencies and rejections are compared with")
    ] = 500
    labelled: Annotated[Count, Field(ge=50, description="labelled images in a window of accuracy")] = 200
    resamples: Annotated[int, Field(ge=100, le=100_000, description="of patients, for intervals of accuracy")] = 1000
    point: Annotated[
        Literal["youden", "sensitivity", "specificity", "f1"], Field(description="operating point that is watched")
    ] = "youden"
    seed: Annotated[Seed, Field(description="of the random features and the resamples")] = 7
    webhook: Annotated[
        str,
        Field(
            pattern="^([A-Za-z_][A-Za-z0-9_]*)?$",
            description="environment variable that holds the URL told of warnings and alarms; empty: none",
        ),
    ] = "CXR_MONITOR_WEBHOOK"
    track: Annotated[bool, Field(description="log the figures to an MLflow run of their own")] = True
    rules: Annotated[
        list[Rule], Field(description="severity, owner and action; the first that matches a signal holds")
    ] = field(default_factory=_rules)
