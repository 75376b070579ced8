"""Optuna's side of a sweep: the store of the trials, which of them comes next, and how they ended."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.files import sha256_file, sha256_text
from pipeline.params import Params
from pipeline.progress import note
from pipeline.shards import META, Processed
from pipeline.sweep_space import choose, present_values, suggested, used
from pipeline.sweep_table import Tried
from pipeline.training.resume import key_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

STORE = "sweep.db"
NUMBER = "number"
_SPARED = 5  # finished trials before one is pruned, at most
_ATTEMPTS = 30  # to find values that were not tried
_APART = 100_003  # between the seeds of attempts, so that no two trials share one


def open_study(path: Path, key: str, params: Params) -> "Study":
    """Open the study of this search, or begin it."""
    import optuna
    from optuna.pruners import MedianPruner

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warmup = 0 if params.schedule.name == "plateau" else math.ceil(params.schedule.warmup_epochs)
    head = epochs_of(params) - params.train.epochs
    return optuna.create_study(
        # SQLite: unlike Optuna's journal file it stays whole when its writer is killed in the middle of a write.
        storage=f"sqlite:///{path.resolve()}",
        study_name=key,
        direction="maximize",
        load_if_exists=True,
        pruner=MedianPruner(
            n_startup_trials=max(1, min(_SPARED, params.sweep.trials // 4)),
            n_warmup_steps=head + warmup + 1,  # the first epoch at the full rate
        ),
    )


def study_key(data: Processed, params: Params) -> str:
    """Return eight letters for all that decides the trials, apart from how many there are."""
    search = dataclasses.replace(params.sweep, trials=1)
    return sha256_text(repr((sha256_file(data.folder / META), key_of(data, params), search)))[:8]


def epochs_of(params: Params) -> int:
    """Return the epochs of a training, those of the head alone included, as Optuna's steps are counted."""
    head = 0 if params.model.weights == "none" else params.finetune.head_epochs
    return head + params.train.epochs


def next_trial(study: "Study", params: Params) -> "Trial | None":
    """Return the trial that was interrupted, else a new one; None if there are enough, or nothing new is found.

    Its attributes are `number` (from 1), `values` (of all searched keys) and `used` (the keys that have a part in it).
    The first one has the values that the parameters have now, if the search holds them. Values that were tried are not
    tried again: the same seed would give the same figures.
    """
    from optuna.samplers import TPESampler
    from optuna.trial import Trial, TrialState

    for begun in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if NUMBER in begun.user_attrs:
            return Trial(study, begun._trial_id)
        study.tell(begun.number, state=TrialState.FAIL)  # it was interrupted before it had its values
    known = [item.user_attrs["values"] for item in _over(study)]
    if len(known) >= params.sweep.trials:
        return None
    if not known and (present := present_values(params)) is not None:
        study.enqueue_trial(present)
    for attempt in range(_ATTEMPTS):
        # Of its own for each trial: one generator for all would repeat its first numbers whenever a sweep goes on.
        study.sampler = TPESampler(seed=(params.sweep.seed + len(known) + attempt * _APART) % 2**32)
        trial = study.ask()
        values = choose(params, suggested(trial))
        if values not in known:
            trial.set_user_attr("values", values)
            trial.set_user_attr("used", used(params, values))
            trial.set_user_attr(NUMBER, len(known) + 1)  # last: with it the trial is one
            return trial
        study.tell(trial, state=TrialState.FAIL)
    note(f"the sweep ends after {len(known)} trials: {_ATTEMPTS} times no values were found that were not tried")
    return None


def tried(study: "Study") -> list[Tried]:
    """Return the trials that are over, in the order in which they began."""
    return [_as_tried(item) for item in _over(study)]


def _over(study: "Study") -> list["FrozenTrial"]:
    return [item for item in study.get_trials(deepcopy=False) if item.state in _names() and NUMBER in item.user_attrs]


def _names() -> dict[Any, Literal["finished", "pruned", "failed"]]:
    from optuna.trial import TrialState

    return {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def _as_tried(trial: "FrozenTrial") -> Tried:
    known, aucs = trial.user_attrs, trial.intermediate_values
    values = {key: known["values"][key] for key in known["used"]}
    start = Tried(known[NUMBER], _names()[trial.state], values, reason=known.get("reason", ""))
    if not aucs:
        return start
    best = max(aucs, key=lambda epoch: (aucs[epoch], -epoch))
    return dataclasses.replace(start, val_auc=aucs[best], best_epoch=best, epochs=max(aucs))
