"""The sections that say how a model is judged, shown, promoted and recorded."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.params.types import STRICT, Count, Fraction, Seed


@dataclass(frozen=True, config=STRICT, kw_only=True)
class EvaluateParams:
    """How the scores and their intervals are computed."""

    resamples: Annotated[int, Field(ge=100, le=100_000, description="bootstrap resamples of patients")] = 2000
    confidence: Annotated[float, Field(ge=0.5, lt=1, description="level of the intervals")] = 0.95
    interval: Annotated[
        Literal["expanded", "percentile", "bca"],
        Field(description="which bootstrap interval is printed (docs/statistics.md); metrics.json holds all three"),
    ] = "expanded"
    seed: Annotated[Seed, Field(description="of the bootstrap")] = 7
    flip: Annotated[bool, Field(description="score the mean over each image and its mirror image")] = False
    ensemble: Annotated[bool, Field(description="train.repeats above 1: score the mean of the repeats' outputs")] = (
        False
    )
    min_sensitivity: Annotated[
        float, Field(gt=0, lt=1, description="operating point: the least sensitivity, reached on validation")
    ] = 0.9
    min_specificity: Annotated[
        float, Field(gt=0, lt=1, description="operating point: the least specificity, reached on validation")
    ] = 0.9
    calibration: Annotated[
        Literal["auto", "none", "temperature", "platt", "isotonic"],
        Field(
            description="fitted on validation; auto: the simplest method whose held-out log-loss is as good as the best"
        ),
    ] = "auto"
    bins: Annotated[int, Field(ge=2, le=100, description="bins of equally many images, for calibration error")] = 10
    age_bands: Annotated[
        list[Annotated[int, Field(ge=1, le=120)]], Field(description="subgroups: years at which a new band begins")
    ] = field(default_factory=lambda: [18, 40, 60, 80])
    subgroup_images: Annotated[Count, Field(description="subgroups with fewer images are counted, not scored")] = 50
    cases: Annotated[
        int, Field(ge=0, le=12, description="test images shown of each kind: hits, misses, false alarms")
    ] = 4
    reference_images: Annotated[
        Count,
        Field(description="images of whole patients in reference.npz, which `cxr monitor` compares with, at most"),
    ] = 5000
    localise: Annotated[bool, Field(description="score heat maps against boxes, where the data set has boxes")] = True

    def __post_init__(self) -> None:
        if sorted(set(self.age_bands)) != self.age_bands:
            raise ValueError(f"age_bands is {self.age_bands}; ages in rising order are needed, as [18, 40, 60, 80]")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ReportParams:
    """The page."""

    title: Annotated[str, Field(min_length=1, max_length=200, description="heading of the report")] = (
        "Chest X-ray classifier"
    )
    examples: Annotated[int, Field(ge=0, le=24, description="training images shown before and after")] = 4


@dataclass(frozen=True, config=STRICT, kw_only=True)
class PromoteParams:
    """When `cxr promote` lets a new model take the champion's place, on the same test images; all must hold."""

    alias: Annotated[
        str, Field(pattern="^[A-Za-z][A-Za-z0-9_-]{0,63}$", description="alias of the registered model")
    ] = "champion"
    macro_margin: Annotated[
        Fraction, Field(description="mean AUC: the difference's lower bound is above minus this")
    ] = 0.01
    finding_margin: Annotated[Fraction, Field(description="no finding's AUC is worse by more than this")] = 0.05
    subgroup_margin: Annotated[
        Fraction, Field(description="no sex's, age band's or view's mean AUC is worse by more than this")
    ] = 0.05
    max_calibration_error: Annotated[
        Fraction, Field(description="mean calibration error of the candidate's calibrated probabilities, at most")
    ] = 0.05


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TrackingParams:
    """MLflow. MLFLOW_TRACKING_URI wins over `uri`."""

    uri: Annotated[str, Field(min_length=1, description="where the runs go")] = "sqlite:///mlflow.db"
    experiment: Annotated[str, Field(min_length=1, max_length=200, description="MLflow experiment")] = "chest-xray"
    register: Annotated[str, Field(max_length=200, description="registered model's name; empty: not registered")] = (
        "chest-xray"
    )
    system_metrics: Annotated[bool, Field(description="log processor, memory and GPU use")] = True

    def __post_init__(self) -> None:
        if "@" in self.uri.partition("://")[2].partition("/")[0]:  # it would be logged and saved beside the model
            raise ValueError(
                "uri holds a user name or password; leave it out here, and set MLFLOW_TRACKING_URI, or "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, in the environment"
            )
