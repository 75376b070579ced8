"""The sections that say what the images are: from their source to the network's pixels."""

import dataclasses
import re
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.params.types import STRICT, Count, Fraction, Positive, Seed

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


@dataclass(frozen=True, config=STRICT, kw_only=True)
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


@dataclass(frozen=True, config=STRICT, kw_only=True)
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


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SimulateParams:
    """The simulated radiographs (source: simulated)."""

    patients: Annotated[int, Field(ge=3, description="how many; several images each")] = 1200
    seed: Annotated[Seed, Field(description="the same seed draws the same films")] = 7
    size: Annotated[int, Field(ge=64, le=2048, description="pixels a side of the files")] = 256
    prevalence: Annotated[
        Literal["even", "nih"],
        Field(description="even: each finding on 7 to 13 % of the films; nih: as often, and in such company, as there"),
    ] = "even"
    prevalence_scale: Annotated[
        float, Field(ge=0.05, le=20, description="multiplies the odds of falling ill (even), of each finding (nih)")
    ] = 1.0
    children: Annotated[Fraction, Field(description="share of the patients who are 1 to 15 years old")] = 0.05
    severity: Annotated[
        list[Fraction], Field(min_length=2, max_length=2, description="range of severities: 0 is subtle, 1 gross")
    ] = field(default_factory=lambda: [0.4, 1.0])
    label_noise: Annotated[
        float, Field(ge=0, le=0.5, description="share of the positive labels that are wrong; as many are missing")
    ] = 0.0
    shortcut: Annotated[
        Fraction, Field(description="0: view and devices tell nothing; 1: a drain is a pneumothorax, AP is sick")
    ] = 0.0
    bedside: Annotated[Fraction, Field(description="share of AP films, as far as chance decides the view")] = 0.45
    scanner: Annotated[
        Literal["mixed", "flat_panel", "computed", "film", "portable"],
        Field(description="kind of detector: mixed (by view), flat_panel, computed (CR plate), film or portable"),
    ] = "mixed"
    exposure: Annotated[
        float, Field(ge=-6, le=6, description="shift of all films in cm of water; positive is darker")
    ] = 0.0
    unusable: Annotated[
        float, Field(ge=0, le=0.5, description="share of spoilt films, for the quarantine; unusable.csv names them")
    ] = 0.0
    format: Annotated[
        Literal["png", "dicom"], Field(description="png, or dicom: read with adapter folder and table labels.csv")
    ] = "png"

    def __post_init__(self) -> None:
        low, high = self.severity
        if low > high:
            raise ValueError(f"severity is {self.severity}; the first of the two must not be above the second")


@dataclass(frozen=True, config=STRICT, kw_only=True)
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


@dataclass(frozen=True, config=STRICT, kw_only=True)
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


@dataclass(frozen=True, config=STRICT, kw_only=True)
class AuditParams:
    """When two films are the same picture though their pixels differ; docs/audit.md measures the choice."""

    distance: Annotated[
        int, Field(ge=0, le=16, description="perceptual hashes that differ in more of their 64 bits are not compared")
    ] = 8
    similarity: Annotated[
        float, Field(ge=0, le=1, description="least correlation of the aligned thumbnails, where they are at hand")
    ] = 0.995


@dataclass(frozen=True, config=STRICT, kw_only=True)
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


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"patient_pattern is {pattern!r}, which is no regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"patient_pattern is {pattern!r} with {groups} groups; one is needed, as in ^(p[0-9]+)_")
