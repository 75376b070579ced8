"""The results of a sweep as a table, and as a page with the values to take over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from ruamel.yaml import YAML

_PAGE = """\
# Sweep

{done} of {trials} trials of {preset}, {epochs} epochs each at most. Validation AUC is the mean AUROC over the findings
of the validation split, {images} images of {patients} patients.

{table}
{best}
- **The best of {done} is too good.** It was chosen on the images that its AUC is measured on, and so was its epoch. The
  more trials, the more of its lead is luck. The test split has no part in a sweep: train with the values you choose,
  and take the figure of `evaluate`.
- Each trial is one seed. A lead smaller than the spread over seeds (`train.repeats`, docs/ablation.md) is none.
- {first}
- Pruned: ended after the epoch that is named, because its best AUC was below the median of the finished trials'
  after the same epoch. It might have become better.
{remarks}
![The trials as lines over their values](parallel.svg)
"""
_BEST = """
The best is trial {number}. For `params.yaml`:

```yaml
{block}```
"""


@dataclass(frozen=True)
class Tried:
    """A trial that is over.

    Attributes
    ----------
    number : int
        From 1.
    state : {'finished', 'pruned', 'failed'}
        How it ended.
    values : dict
        Key to value; without the keys that had no part in it.
    val_auc : float
        Highest validation AUC of its epochs; NaN if there is none.
    best_epoch, epochs : int
        The epoch that had it, from 1, and how many were scored; 0 if none was.
    reason : str
        Why it failed.
    """

    number: int
    state: Literal["finished", "pruned", "failed"]
    values: Mapping[str, Any]
    val_auc: float = float("nan")
    best_epoch: int = 0
    epochs: int = 0
    reason: str = ""


def ranked(trials: Sequence[Tried]) -> list[Tried]:
    """Return the trials, the highest validation AUC first; those that failed last."""
    return sorted(trials, key=lambda item: (item.val_auc != item.val_auc, -item.val_auc, item.number))


def best_of(trials: Sequence[Tried]) -> Tried | None:
    """Return the finished trial of the highest validation AUC; None if none is finished."""
    return next((item for item in ranked(trials) if item.state == "finished"), None)


def table_of(trials: Sequence[Tried], keys: Sequence[str]) -> pd.DataFrame:
    """Return a row for each trial, in the order of `ranked`: all of `Tried`, and a column for each key."""
    names = ("number", "state", "val_auc", "best_epoch", "epochs")
    rows = [
        {"trial" if name == "number" else name: getattr(item, name) for name in names}
        | {key: item.values.get(key) for key in keys}
        | {"reason": item.reason}
        for item in ranked(trials)
    ]
    return pd.DataFrame(rows, columns=["trial", *names[1:], *keys, "reason"])


def markdown(trials: Sequence[Tried], keys: Sequence[str], about: Mapping[str, Any]) -> str:
    """Return the page.

    Parameters
    ----------
    trials : sequence of Tried
        In any order.
    keys : sequence of str
        What was searched.
    about : mapping
        `trials` (how many there are to be), `preset`, `epochs`, `images`, `patients`, `first` (a sentence on the first
        trial).
    """
    best = best_of(trials)
    failed = [f"- Trial {item.number} failed: {item.reason}." for item in trials if item.state == "failed"]
    return _PAGE.format(
        done=len(trials),
        table="\n".join([*_heading(keys), *(_row(item, keys, best) for item in ranked(trials))]),
        best=_BEST.format(number=best.number, block=block_of(best.values)) if best else "\nNone is finished.\n",
        remarks="".join(f"{line}\n" for line in failed),
        **about,
    )


def block_of(values: Mapping[str, Any]) -> str:
    """Return values as YAML, in their sections, with all digits."""
    import io

    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    text = io.StringIO()
    yaml.dump(sections, text)
    return text.getvalue()


def shown(value: Any) -> str:
    """Return a value as it is printed: three digits of a number, a dash for none."""
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _heading(keys: Sequence[str]) -> list[str]:
    columns = ["trial", "validation AUC", "best epoch", "", *(f"`{key}`" for key in keys)]
    return ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]


def _row(item: Tried, keys: Sequence[str], best: Tried | None) -> str:
    auc = "undefined" if item.val_auc != item.val_auc else f"{item.val_auc:.4f}"
    auc = f"**{auc}**" if item is best else auc
    epoch = f"{item.best_epoch} of {item.epochs}" if item.epochs else ""
    state = f"pruned after epoch {item.epochs}" if item.state == "pruned" else item.state
    return f"| {' | '.join([str(item.number), auc, epoch, state, *(shown(item.values.get(key)) for key in keys)])} |"
