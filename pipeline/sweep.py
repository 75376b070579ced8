"""A search for parameters that raise validation AUC: Optuna's TPE, with trials that fall behind pruned.

Tree-structured Parzen estimator: Bergstra et al., NeurIPS 2011, section 4; the median rule that prunes: Golovin et al.,
KDD 2017, section 3.2.1. The test split has no part in it, because choosing parameters is training.
"""

import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.files import atomic_open, write_text
from pipeline.own_process import call_in_own_process
from pipeline.params import Params
from pipeline.params.sweep import SEARCHED
from pipeline.params_file import as_dict
from pipeline.precision import resolve_precision
from pipeline.progress import note, warn
from pipeline.shards import Processed, open_processed
from pipeline.sweep_plot import parallel_svg
from pipeline.sweep_space import base_of, present_values, require_possible, with_values
from pipeline.sweep_study import NUMBER, STORE, epochs_of, next_trial, open_study, study_key, tried
from pipeline.sweep_table import Tried, best_of, markdown, shown, table_of
from pipeline.tracking import Run, code_version, without_secrets
from pipeline.training.fit import fit_elsewhere
from pipeline.training.resume import key_of, working_folder

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

Fit = Callable[..., dict[str, list[float]]]
_HOPELESS = 3  # trials that failed before any was finished


class _Pruned(Exception):  # noqa: N818  # no error
    """Ends the process of a trial that has fallen behind."""


def sweep(processed: Path, out: Path, params: Params, fit: Fit = fit_elsewhere) -> None:
    """Run the trials that are missing, one after another, and write the table and the figure after each.

    Parameters
    ----------
    processed : Path
        What `preprocess` made; its splits train and val are used.
    out : Path
        Where `sweep.csv`, `sweep.md`, `parallel.svg`, the store of the trials and TensorBoard's files go. A sweep that
        was stopped goes on from there.
    params : Params
        Section `sweep` says what is searched; all others are the same in all trials.
    fit : callable
        Trains one trial, in a process of its own; arguments and answer as of `fit_elsewhere`.

    Raises
    ------
    UserError
        If the images are unfinished, the search holds combinations that make no sense, another sweep works in `out`,
        or no trial can be finished.
    """
    from pipeline.train import require_defined_auc

    data = open_processed(processed)
    require_defined_auc(data)
    base = base_of(resolve_precision(params))
    require_possible(base)
    with _alone(out):
        key = study_key(data, base)
        study = open_study(out / STORE, key, base)
        run = _opened_run(study, data, base)
        try:
            _run_trials(study, run, fit, data, base, out / key)
            _finish(write_results(study, out, data, base), run, out)
            run.end()
        except BaseException:
            run.end("KILLED")
            raise


def _opened_run(study: "Study", data: Processed, base: Params) -> Run:
    """Begin the sweep's MLflow run, or go on with it."""
    known = study.user_attrs.get("run", {})
    if known.get("run_id"):
        return Run(base.tracking, run_id=known["run_id"], uri=known["uri"])
    run = Run(base.tracking, name="sweep")
    study.set_user_attr("run", {"run_id": run.id, "uri": without_secrets(run.uri)})
    sections = as_dict(base)
    run.log_params(
        {"sweep": {"seed": base.sweep.seed} | base.sweep.search} | {name: sections[name] for name in SEARCHED}
    )
    run.log_tags({"code_version": code_version(), "dataset": str(data.meta["dataset"])})
    return run


def _run_trials(study: "Study", run: Run, fit: Fit, data: Processed, base: Params, folder: Path) -> None:
    while (trial := next_trial(study, base)) is not None:
        _try(study, trial, run, fit, data, base, folder)
        trials = write_results(study, folder.parent, data, base)
        if len(trials) >= _HOPELESS and all(item.state == "failed" for item in trials):
            raise UserError(
                f"all of the first {len(trials)} trials failed, the last because: {trials[-1].reason}; narrow "
                "sweep.search and run this again"
            )


def _try(study: "Study", trial: "Trial", run: Run, fit: Fit, data: Processed, base: Params, folder: Path) -> None:
    """Train one trial, and tell MLflow and Optuna how it ended."""
    number, params = trial.user_attrs[NUMBER], with_values(base, trial.user_attrs["values"])
    shares = {key: trial.user_attrs["values"][key] for key in trial.user_attrs["used"]}
    note(f"trial {number} of {base.sweep.trials}: {_in_words(shares)}")
    known = trial.user_attrs.get("run_id")
    log = Run(base.tracking, name=f"trial-{number}", run_id=known, uri=run.uri, nested=True)
    if not known:
        trial.set_user_attr("run_id", log.id or None)
        log.log_params(as_dict(params))
    try:
        _train(study, trial, log, fit, data, params, folder)
    except BaseException:  # stopped by the user, or by a full disk: the trial goes on next time
        log.end("KILLED")
        raise
    ended = next(item for item in tried(study) if item.number == number)
    if ended.epochs:
        log.log_metrics({"best_epoch": ended.best_epoch, "best_val_auc": ended.val_auc})
    log.log_tags({"trial": str(ended.number), "state": ended.state})
    log.end({"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}[ended.state])
    if ended.state == "failed":
        warn(f"trial {ended.number} failed: {ended.reason}")
    else:
        note(f"trial {ended.number} is {ended.state}: validation AUC {ended.val_auc:.4f} in epoch {ended.best_epoch}")
    shutil.rmtree(folder / f"trial-{number}", ignore_errors=True)


def _train(study: "Study", trial: "Trial", log: Run, fit: Fit, data: Processed, params: Params, folder: Path) -> None:
    """Train in a process of its own, from where an interrupted one was, and close Optuna's trial."""
    from optuna.trial import TrialState

    name = f"trial-{trial.user_attrs[NUMBER]}"
    working_folder(folder / name, key_of(data, params))
    receive = _Receive(study, trial, log, name, epochs_of(params))
    arguments = (data, params, folder / name, folder / "tensorboard" / name, name)
    try:
        history = call_in_own_process(fit, *arguments, receive=receive)
    except _Pruned:
        if sys.stderr.isatty():
            note("")  # the process was ended in the line of its bar
        study.tell(trial, state=TrialState.PRUNED)
    except UserError as error:
        trial.set_user_attr("reason", str(error))
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, max(value for value in history["val_auc"] if not math.isnan(value)))


class _Receive:
    """Takes an epoch's figures from the training: to MLflow and to Optuna, which may end it."""

    def __init__(self, study: "Study", trial: "Trial", log: Run, label: str, epochs: int) -> None:
        self._trial, self._log, self._label, self._epochs = trial, log, label, epochs
        self._known = set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def __call__(self, figures: dict[str, float], epoch: int) -> None:
        if epoch in self._known:  # it was scored, and is trained again after an interruption
            return
        plain = {name.removeprefix(f"{self._label}/"): value for name, value in figures.items()}
        self._log.log_metrics(plain, epoch)
        auc = float(plain.get("val_auc", math.nan))
        if math.isnan(auc):
            return
        self._trial.report(auc, epoch)
        if epoch < self._epochs and self._trial.should_prune():
            raise _Pruned


def write_results(study: "Study", out: Path, data: Processed, params: Params) -> list[Tried]:
    """Write `sweep.csv`, `sweep.md` and `parallel.svg`, each whole or not at all; return the trials that are over."""
    trials, keys, rows = tried(study), list(params.sweep.search), data.rows("val")
    same = present_values(params) is not None
    about = {
        "trials": params.sweep.trials,
        "preset": params.dataset.preset,
        "epochs": epochs_of(params),
        "images": len(rows),
        "patients": rows["patient_id"].nunique(),
        "first": "Trial 1 has the values of the parameter file."
        if same
        else "The parameter file's own values lie outside the search, so no trial has them.",
    }
    with atomic_open(out / "sweep.csv") as handle:
        table_of(trials, keys).to_csv(handle, index=False, lineterminator="\n")
    write_text(out / "parallel.svg", parallel_svg(trials, params.sweep.search))
    write_text(out / "sweep.md", markdown(trials, keys, about))
    return trials


def _finish(trials: list[Tried], run: Run, out: Path) -> None:
    """Log the results with the sweep's run, and say which trial was best."""
    best = best_of(trials)
    if best is None:
        raise UserError(f"no trial was finished: see {out / 'sweep.md'}, change sweep.search and run this again")
    run.log_metrics({"best_val_auc": best.val_auc, "best_trial": best.number})
    run.log_files(out / "sweep.csv", out / "sweep.md", out / "parallel.svg")
    note(
        f"best of {len(trials)}: trial {best.number}, validation AUC {best.val_auc:.4f}, optimistic because it "
        f"was chosen: {_in_words(best.values)}; table and values for params.yaml: {out / 'sweep.md'}"
    )


def _in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {shown(value)}" for key, value in values.items())


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the lock of the folder; it ends with this process, however that ends."""
    import fcntl

    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another sweep is at work in {out}: wait for it, or give another folder (--out)") from None
        yield
    finally:
        os.close(descriptor)
