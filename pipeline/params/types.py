"""What the sections of the parameters share: exact types and their ranges, and how a useless key is refused."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field

# pydantic checks exact types (no "7" for 7) and takes no infinity or NaN.
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


def refuse_unread(section: Any, chosen: str, readers: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a key that was changed though nothing reads it.

    Parameters
    ----------
    section : dataclass
        The section.
    chosen : str
        The key whose value decides which others are read, such as `name`.
    readers : mapping
        Key to the values of `chosen` that read it.

    Raises
    ------
    ValueError
        Names the key, its value and who would read it.
    """
    value = getattr(section, chosen)
    for item in dataclasses.fields(section):
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        known = readers.get(item.name, (value,))
        given = getattr(section, item.name)
        if value not in known and given and given != default:  # 0 and nothing switch a thing off: no harm
            raise ValueError(
                f"{item.name} is {given!r}, and only {chosen} {' or '.join(known)} reads it, "
                f"not {value}; remove it, or set {chosen} to {' or '.join(known)}"
            )
