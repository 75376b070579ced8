"""The tables of the prediction log as they are now; `migrations/` holds the way from every earlier state.

Numbers that belong together are one column of packed little-endian values, whose names stand once for each model in
`models`: a row of 14 findings takes some 300 bytes, and a million rows are read within seconds.
"""

from typing import Final

import numpy as np
from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)

METADATA: Final = MetaData()
# SQLite counts up by itself only a column of exactly this type.
_NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")

MODELS: Final = Table(
    "models",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("version", String(80), nullable=False),  # as in the manifest: 12 hexadecimal digits and the format
    Column("names", Text, nullable=False),  # JSON of `ModelNames`, so that a model that logs more is another row
)
PREDICTIONS: Final = Table(
    "predictions",
    METADATA,
    Column("id", _NUMBER, primary_key=True),
    Column("time", Double, nullable=False, index=True),  # seconds since 1970, UTC
    Column("request_id", String(64), nullable=False, index=True),
    Column("image", SmallInteger, nullable=False),  # which of the request's images, from 0
    Column("model", Integer, nullable=False),  # models.id
    Column("status", SmallInteger, nullable=False),  # STATUSES
    Column("reasons", String(200), nullable=False),  # codes of the gate, separated by spaces
    Column("statistics", LargeBinary),  # float32, names.statistics
    Column("sketch", LargeBinary),  # float32
    Column("probabilities", LargeBinary),  # float32, names.findings; raw outputs
    Column("decisions", LargeBinary),  # int8, names.findings: 1, 0, -1 without an operating point
    Column("latency", LargeBinary),  # float32, names.steps; milliseconds
)
LABELS: Final = Table(
    "labels",
    METADATA,
    Column("id", _NUMBER, primary_key=True),  # the order in which the truth arrived
    Column("request_id", String(64), nullable=False, index=True),
    Column("image", SmallInteger, nullable=False),
    Column("time", Double, nullable=False),  # of arrival, seconds since 1970, UTC
    Column("patient", Integer, nullable=False),  # a number drawn for one file of labels; never an identifier
    Column("truth", LargeBinary, nullable=False),  # int8, names.findings: 1, 0, -1 unknown
)

STATUSES: Final = ("ok", "flagged", "failed")
"""What `predictions.status` counts: answered, flagged by the gate, no answer because of an error."""
FLOATS: Final = np.dtype("<f4")
WHOLE: Final = np.dtype("i1")
