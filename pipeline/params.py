"""The parameters: one frozen dataclass per section of `params.yaml`, checked by pydantic.

The defaults here are the only ones. A preset (`configs/NAME.yaml`) overrides some of them; `params.yaml` is the
preset written out in full (see `pipeline.presets`), which is what DVC watches; `pipeline.params_file` reads it.
"""

import dataclasses
import re
from dataclasses import field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

# pydantic checks exact types (no "7" for 7) and takes no infinity or NaN.
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Uncertain = Literal["ignore", "zeros", "ones"]
Suspicion = Literal[
    "too-dark",
    "too-bright",
    "low-contrast",
    "colour",
    "lateral",
    "rotated",
    "inverted",
    "burnt-in-annotation",
    "conflicting-labels",
]

# The parameters of `dataset` that a single adapter reads.
_READERS = dict.fromkeys(("uncertain", "uncertain_findings", "blank"), "chexpert")
_READERS |= {"readers": "vinbigdata"}
_READERS |= dict.fromkeys(("table", "image_column", "patient_column", "finding_columns", "patient_pattern"), "folder")


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class DatasetParams:
    """Which data set, in whose layout."""

    preset: Annotated[str, Field(description="the preset this file was made from (make train PRESET=…)")] = "simulated"
    adapter: Annotated[
        Literal["nih", "pneumonia", "chexpert", "covid-radiography", "rsna-pneumonia", "vinbigdata", "folder"],
        Field(description="who reads data/raw, see docs/datasets; nih reads the full set and the sample"),
    ] = "nih"
    views: Annotated[
        Literal["frontal", "all"], Field(description="frontal leaves out the films known to be lateral")
    ] = "frontal"
    uncertain: Annotated[
        Uncertain, Field(description="chexpert: -1 becomes unknown (ignore), 0 (zeros) or 1 (ones)")
    ] = "ignore"
    uncertain_findings: Annotated[
        dict[str, Uncertain], Field(description="chexpert: another rule for single findings, {Edema: ones}")
    ] = field(default_factory=dict)
    blank: Annotated[
        Literal["unknown", "zeros"], Field(description="chexpert: a finding that the report does not mention")
    ] = "unknown"
    readers: Annotated[
        Literal["majority", "any"], Field(description="vinbigdata: how many of an image's readers must see a finding")
    ] = "majority"
    table: Annotated[
        str, Field(max_length=1000, description="folder: CSV below data/raw; empty: one folder for each class")
    ] = ""
    image_column: Annotated[str, Field(min_length=1, description="folder: column with the image's path or name")] = (
        "image"
    )
    patient_column: Annotated[str, Field(description="folder: column with the patient; empty: there is none")] = (
        "patient"
    )
    finding_columns: Annotated[
        list[str], Field(description="folder: columns with 1, 0 or nothing; empty: all that hold only these")
    ] = field(default_factory=list)
    patient_pattern: Annotated[
        str,
        Field(max_length=200, description="folder: regular expression, its one group is the patient in a file name"),
    ] = ""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
            reader = _READERS.get(item.name, self.adapter)
            if reader != self.adapter and getattr(self, item.name) != default:
                raise ValueError(
                    f"{item.name} is {getattr(self, item.name)!r}, and only the adapter {reader} knows it, not "
                    f"{self.adapter}; remove it, or set adapter to {reader}"
                )
        if not self.table and (self.finding_columns, self.image_column, self.patient_column) != (
            [],
            "image",
            "patient",
        ):
            raise ValueError(
                "image_column, patient_column and finding_columns are columns of a table; name it in table"
            )
        if self.table and self.patient_pattern and self.patient_column:
            raise ValueError('patient_pattern and patient_column both say the patient; set one of them to ""')
        if self.patient_pattern:
            _check_pattern(self.patient_pattern)


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class DownloadParams:
    """Where the images come from."""

    source: Annotated[
        Literal["simulated", "local", "kaggle"],
        Field(description="simulated, local (archive below) or kaggle"),
    ] = "simulated"
    archive: Annotated[
        str, Field(description="local: a .zip, .tar or .tar.gz in Kaggle's layout, a folder, or a folder of archives")
    ] = ""
    sha256: Annotated[
        str,
        Field(
            pattern="^([0-9a-f]{64})?$",
            description="local: the archive's SHA-256; a changed archive is refused",
        ),
    ] = ""
    kaggle: Annotated[
        str,
        Field(
            pattern=r"^([\w-]+/[\w-]+)?$",
            description="kaggle: owner/data-set or competitions/NAME, as in the page's address",
        ),
    ] = ""
    files: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(description="kaggle: patterns of the files wanted, as images_001/*; empty: the whole archive"),
    ] = field(default_factory=list)


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class SimulateParams:
    """The simulated radiographs (source: simulated)."""

    patients: Annotated[int, Field(ge=3, description="several images each")] = 1000
    seed: Annotated[Seed, Field(description="the same seed draws the same films")] = 7
    size: Annotated[int, Field(ge=64, le=2048, description="pixels a side of the PNG files")] = 256


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class IngestParams:
    """What a usable image file is."""

    min_side: Annotated[int, Field(ge=8, description="pixels; smaller images are quarantined")] = 64
    max_pixels: Annotated[
        int,
        Field(ge=4096, le=1_000_000_000, description="width x height; larger ones are quarantined undecoded"),
    ] = 100_000_000
    refuse: Annotated[
        list[Suspicion], Field(description="codes of suspicious films to keep out (docs/audit.md); empty: all stay in")
    ] = field(default_factory=list)


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class SplitParams:
    """Who goes where: whole patients, never images."""

    protocol: Annotated[
        Literal["patient", "official", "folder"],
        Field(description="patient (7:2:1), official (NIH's lists) or folder (the archive's own test folder)"),
    ] = "patient"
    train: Annotated[Fraction, Field(gt=0, description="share of the images; the three sum to 1")] = 0.7
    val: Annotated[Fraction, Field(gt=0, description="official and folder: val/(train+val) of the rest")] = 0.2
    test: Annotated[Fraction, Field(gt=0, description="official and folder: their own test set instead")] = 0.1
    seed: Annotated[Seed, Field(description="the same seed gives the same split, whatever the order of the rows")] = 7

    def __post_init__(self) -> None:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + val + test is {total:g}; the three fractions must sum to 1")


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class AuditParams:
    """When two films are the same picture though their pixels differ; docs/audit.md measures the choice."""

    distance: Annotated[
        int, Field(ge=0, le=16, description="perceptual hashes that differ in more of their 64 bits are not compared")
    ] = 8
    similarity: Annotated[
        float, Field(ge=0, le=1, description="least correlation of the aligned thumbnails, where they are at hand")
    ] = 0.995


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class PreprocessParams:
    """From any file to the network's pixels; predict and serve read the same values from the model."""

    size: Annotated[int, Field(ge=32, le=1024, description="pixels a side; every image becomes size x size")] = 256
    fit: Annotated[
        Literal["stretch", "letterbox"],
        Field(description="stretch, or letterbox (keep the aspect, pad with black)"),
    ] = "stretch"
    clahe: Annotated[bool, Field(description="contrast-limited adaptive histogram equalisation after resizing")] = True
    clip_limit: Annotated[Positive, Field(description="CLAHE: contrast limit")] = 2.0
    tiles: Annotated[int, Field(ge=1, le=64, description="CLAHE: tiles a side")] = 8
    shard_images: Annotated[Count, Field(description="images in one shard file")] = 1024
    engine: Annotated[
        Literal["local", "dask", "ray"],
        Field(description="local (this machine's cores), dask or ray (make setup EXTRAS=dask); the same images"),
    ] = "local"
    address: Annotated[
        str,
        Field(max_length=300, description="dask or ray: the scheduler's; empty: a cluster of this machine's cores"),
    ] = ""

    def __post_init__(self) -> None:
        if self.address and self.engine == "local":
            raise ValueError(f"address is {self.address!r}, and engine is local; set engine to dask or ray")
        if "@" in self.address:  # the parameters are logged and saved beside the model
            raise ValueError("address holds a user name or password; give it as HOST:PORT or tcp://HOST:PORT")


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class AugmentParams:
    """albumentations on the training images only. No flip by default: the heart lies left."""

    enabled: Annotated[bool, Field(description="false trains on the images as they are")] = True
    rotate: Annotated[float, Field(ge=0, le=45, description="degrees, to either side")] = 7.0
    shift: Annotated[float, Field(ge=0, le=0.5, description="share of the side, in each direction")] = 0.04
    scale: Annotated[float, Field(ge=0, le=0.5, description="zoom in or out by up to this share")] = 0.08
    brightness: Annotated[Fraction, Field(description="change by up to this share")] = 0.1
    contrast: Annotated[Fraction, Field(description="change by up to this share")] = 0.1
    horizontal_flip: Annotated[Fraction, Field(description="probability of a mirror image")] = 0.0


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class ModelParams:
    """The network."""

    backbone: Annotated[Literal["ResNet50"], Field(description="from keras.applications")] = "ResNet50"
    weights: Annotated[
        str,
        Field(min_length=1, description="imagenet (checked by hash), none, or a .keras / .weights.h5 file"),
    ] = "imagenet"
    dropout: Annotated[float, Field(ge=0, lt=1, description="on the pooled features")] = 0.0


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class TrainParams:
    """How the network is fitted."""

    seed: Annotated[Seed, Field(description="weights, order and augmentation")] = 7
    epochs: Annotated[Count, Field(description="at most; early stopping may end sooner")] = 20
    batch_size: Annotated[Count, Field(description="images a step over all devices together")] = 32
    learning_rate: Annotated[Positive, Field(description="of Adam, at the start")] = 1.0e-4
    loss: Annotated[
        Literal["focal", "binary_crossentropy"],
        Field(description="focal (Lin et al. 2017) or binary_crossentropy"),
    ] = "focal"
    alpha: Annotated[Fraction, Field(gt=0, description="focal: the same factor for both classes")] = 0.25
    gamma: Annotated[float, Field(ge=0, le=10, description="focal: 0 is cross-entropy")] = 2.0
    schedule: Annotated[
        Literal["plateau", "cosine", "constant"],
        Field(description="plateau (a tenth when validation AUC stands still), cosine (to 0) or constant"),
    ] = "plateau"
    plateau_patience: Annotated[Count, Field(description="plateau: epochs without a better validation AUC")] = 2
    stop_patience: Annotated[Count, Field(description="epochs without a better validation AUC, then stop")] = 5
    precision: Annotated[
        Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"],
        Field(description="Keras dtype policy; auto takes the one that pays on the machine and records it"),
    ] = "float32"
    deterministic: Annotated[bool, Field(description="the same seed, the same numbers; slower on GPUs")] = True
    auc_images: Annotated[Count, Field(description="training images, fixed and not augmented, for the train AUC")] = 512
    repeats: Annotated[
        int, Field(ge=1, le=50, description="trainings with the seeds seed, seed+1, …; the first is the model")
    ] = 1


@dataclass(frozen=True, config=_STRICT, kw_only=True)
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
    localise: Annotated[bool, Field(description="score Grad-CAM against boxes, where the data set has boxes")] = True

    def __post_init__(self) -> None:
        if sorted(set(self.age_bands)) != self.age_bands:
            raise ValueError(f"age_bands is {self.age_bands}; ages in rising order are needed, as [18, 40, 60, 80]")


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class ReportParams:
    """The page."""

    title: Annotated[str, Field(min_length=1, max_length=200, description="heading of the report")] = (
        "Chest X-ray classifier"
    )
    examples: Annotated[int, Field(ge=0, le=24, description="training images shown before and after")] = 4


@dataclass(frozen=True, config=_STRICT, kw_only=True)
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


@dataclass(frozen=True, config=_STRICT, kw_only=True)
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


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class Params:
    """All sections, in the order of the file."""

    dataset: DatasetParams = field(default_factory=DatasetParams)
    download: DownloadParams = field(default_factory=DownloadParams)
    simulate: SimulateParams = field(default_factory=SimulateParams)
    ingest: IngestParams = field(default_factory=IngestParams)
    split: SplitParams = field(default_factory=SplitParams)
    audit: AuditParams = field(default_factory=AuditParams)
    preprocess: PreprocessParams = field(default_factory=PreprocessParams)
    augment: AugmentParams = field(default_factory=AugmentParams)
    model: ModelParams = field(default_factory=ModelParams)
    train: TrainParams = field(default_factory=TrainParams)
    evaluate: EvaluateParams = field(default_factory=EvaluateParams)
    report: ReportParams = field(default_factory=ReportParams)
    promote: PromoteParams = field(default_factory=PromoteParams)
    tracking: TrackingParams = field(default_factory=TrackingParams)


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"patient_pattern is {pattern!r}, which is no regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"patient_pattern is {pattern!r} with {groups} groups; one is needed, as in ^(p[0-9]+)_")
