"""The parameters: one frozen dataclass per section of `params.yaml`, checked by pydantic.

The defaults here are the only ones. A preset (`configs/NAME.yaml`) overrides some of them; `params.yaml` is the
preset written out in full (see `pipeline.presets`), which is what DVC watches; `pipeline.params_file` reads it.
"""

from dataclasses import field

from pydantic.dataclasses import dataclass

from pipeline.params.data import (
    AuditParams,
    DatasetParams,
    DownloadParams,
    IngestParams,
    PreprocessParams,
    SimulateParams,
    SplitParams,
    Suspicion,
    Uncertain,
)
from pipeline.params.exporting import DistillParams, ExportParams, PruneParams
from pipeline.params.gating import GateParams
from pipeline.params.monitoring import LogParams, MonitorParams, Rule
from pipeline.params.results import EvaluateParams, PromoteParams, ReportParams, TrackingParams
from pipeline.params.serving import ServeParams
from pipeline.params.sweep import SweepParams
from pipeline.params.training import (
    AugmentParams,
    FinetuneParams,
    LossParams,
    ModelParams,
    OptimizerParams,
    ScheduleParams,
    TrainParams,
)
from pipeline.params.types import STRICT

__all__ = [
    "AuditParams",
    "AugmentParams",
    "DatasetParams",
    "DistillParams",
    "DownloadParams",
    "EvaluateParams",
    "ExportParams",
    "FinetuneParams",
    "GateParams",
    "IngestParams",
    "LogParams",
    "LossParams",
    "ModelParams",
    "MonitorParams",
    "OptimizerParams",
    "Params",
    "PreprocessParams",
    "PromoteParams",
    "PruneParams",
    "ReportParams",
    "Rule",
    "ScheduleParams",
    "ServeParams",
    "SimulateParams",
    "SplitParams",
    "Suspicion",
    "SweepParams",
    "TrackingParams",
    "TrainParams",
    "Uncertain",
]


@dataclass(frozen=True, config=STRICT, kw_only=True)
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
    loss: LossParams = field(default_factory=LossParams)
    optimizer: OptimizerParams = field(default_factory=OptimizerParams)
    schedule: ScheduleParams = field(default_factory=ScheduleParams)
    finetune: FinetuneParams = field(default_factory=FinetuneParams)
    train: TrainParams = field(default_factory=TrainParams)
    evaluate: EvaluateParams = field(default_factory=EvaluateParams)
    export: ExportParams = field(default_factory=ExportParams)
    gate: GateParams = field(default_factory=GateParams)
    report: ReportParams = field(default_factory=ReportParams)
    promote: PromoteParams = field(default_factory=PromoteParams)
    tracking: TrackingParams = field(default_factory=TrackingParams)
    sweep: SweepParams = field(default_factory=SweepParams)
    distill: DistillParams = field(default_factory=DistillParams)
    prune: PruneParams = field(default_factory=PruneParams)
    serve: ServeParams = field(default_factory=ServeParams)
    log: LogParams = field(default_factory=LogParams)
    monitor: MonitorParams = field(default_factory=MonitorParams)

    def __post_init__(self) -> None:
        if self.model.weights != "none":
            self.finetune.check(self.model.backbone)
        if self.train.sampling == "balanced" and self.loss.class_weights == "balanced":
            raise ValueError(
                "train.sampling and loss.class_weights are both balanced, which counts rare findings twice; "
                "set one of them back"
            )
        if self.schedule.name != "plateau" and self.schedule.warmup_epochs >= self.train.epochs:
            raise ValueError(
                f"schedule.warmup_epochs is {self.schedule.warmup_epochs:g} of train.epochs {self.train.epochs}; "
                "fewer are needed"
            )
        if self.schedule.milestones and self.schedule.milestones[-1] >= self.train.epochs:
            raise ValueError(
                f"schedule.milestones is {self.schedule.milestones} of train.epochs {self.train.epochs}; "
                "all must lie before the last"
            )
        if self.train.cluster != "none" and self.train.sampling == "balanced":
            raise ValueError("train.sampling balanced is not offered in a cluster; set it to shuffled")
