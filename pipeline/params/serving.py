"""The section that says how `cxr serve` listens, what it takes and how long it waits."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.params.types import STRICT, Count

Seconds = Annotated[float, Field(ge=0.05, le=3600)]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ServeParams:
    """How `cxr serve` answers (docs/serving.md). The token is no parameter: it comes from the environment or a file."""

    host: Annotated[str, Field(min_length=1, max_length=255, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="0: any free one")] = 8000
    anywhere: Annotated[bool, Field(description="listen beyond this machine without a token, too")] = False
    hosts: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9.:\[\]-]{1,255}$")]],
        Field(description="names in the address bar that are answered beside loopback's; empty: with a token any"),
    ] = field(default_factory=list)
    threads: Annotated[int, Field(ge=0, le=256, description="films worked on at a time; 0: one for each core")] = 0
    queue: Annotated[Count, Field(le=10_000, description="films that may wait; more are sent away with 429")] = 64
    batch: Annotated[Count, Field(le=256, description="films that go through the network together, at most")] = 8
    wait_ms: Annotated[
        float, Field(ge=0, le=1000, description="how long a film waits for company while nobody else works")
    ] = 0.0
    max_files: Annotated[Count, Field(le=1000, description="films in one request")] = 16
    max_upload_mb: Annotated[Count, Field(le=1024, description="MiB of one request")] = 128
    max_memory_mb: Annotated[Count, Field(le=1_000_000, description="MiB of all requests under way together")] = 512
    max_megapixels: Annotated[Count, Field(le=1000, description="of a film, read from its header first")] = 50
    max_connections: Annotated[Count, Field(le=100_000, description="open at a time; more are turned away")] = 256
    header_s: Annotated[Seconds, Field(description="seconds for a request's line and headers")] = 10.0
    idle_s: Annotated[Seconds, Field(description="seconds without a byte, sent or taken")] = 10.0
    upload_s: Annotated[Seconds, Field(description="seconds for a whole upload")] = 60.0
    answer_s: Annotated[Seconds, Field(description="seconds from the last byte to the answer")] = 60.0
    keep_alive_s: Annotated[Seconds, Field(description="seconds that a connection stays open without a request")] = 15.0
    stop_s: Annotated[Seconds, Field(description="seconds to answer what was accepted once told to stop")] = 60.0
    point: Annotated[
        Literal["youden", "sensitivity", "specificity", "f1"],
        Field(description="operating point at which a finding is called (operating_points.json)"),
    ] = "youden"
    log: Annotated[
        str, Field(max_length=1000, description="prediction log's address (docs/monitoring.md); empty: none")
    ] = ""

    def __post_init__(self) -> None:
        for small, large in (
            ("max_files", "queue"),
            ("batch", "queue"),
            ("max_upload_mb", "max_memory_mb"),
            ("idle_s", "upload_s"),
        ):
            if getattr(self, small) > getattr(self, large):
                raise ValueError(
                    f"{small} is {getattr(self, small)} and {large} {getattr(self, large)}: no such request could ever "
                    f"be taken; {small} must not be larger"
                )
        if "@" in self.log.partition("://")[2].partition("/")[0]:  # parameters are saved beside every model
            raise ValueError(
                "log holds a user name or password; leave it out here and set CXR_LOG_URL in the environment"
            )
