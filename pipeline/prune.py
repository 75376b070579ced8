"""Command `prune`: fine-tune a trained model while the smallest of its weights become 0, and say what that saves."""

import dataclasses
import gzip
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import sha256_file, sha256_text, write_json
from pipeline.params import Params, ScheduleParams
from pipeline.precision import resolve_precision
from pipeline.progress import note
from pipeline.quiet import load_tensorflow
from pipeline.repeats import MODEL
from pipeline.shards import Processed, open_processed

REPORT = "pruning.json"


def prune(model_path: Path, processed: Path, out: Path, params: Params) -> None:
    """Fine-tune to `prune.sparsity`; write what `train` writes, and `pruning.json`.

    A killed one goes on after its last whole epoch.

    Parameters
    ----------
    model_path : Path
        The model to begin with, `model.keras`.
    processed : Path
        The processed images.
    out : Path
        The pruned model's folder.
    params : Params
        Section `prune`; `augment`, `loss`, `optimizer`, `train` as in training; the rate falls by a cosine.

    Raises
    ------
    UserError
        If the model is missing or has other findings or another image size, or `out` is its folder.
    """
    data = open_processed(processed)
    if out.resolve() == model_path.resolve().parent:
        raise UserError(f"{out} is the model's own folder: name another, such as {out / 'pruned'}")
    params = resolve_precision(pruning_params(params))
    load_tensorflow()
    from pipeline.model import load_model
    from pipeline.shrinking.fitting import clear, close, fit_best, opened_run
    from pipeline.training.fused_norm import fuse_within
    from pipeline.training.resume import key_of, working_folder
    from pipeline.training.trainer import set_up

    set_up(params)
    network = load_model(model_path)
    if params.train.fused:
        network = fuse_within(network)
    key = sha256_text(key_of(data, params) + sha256_file(model_path) + repr(params.prune))
    staging = out / ".partial"
    clear(out)
    run = opened_run(params, staging, f"prune-{params.model.backbone}", again=working_folder(staging, key))
    try:
        history = fit_best(task_of(network, data, params), data, params, staging, run.log_metrics)
        report = saved(model_path, staging / MODEL)
        close(data, params, run, staging, history, out)
    except BaseException:
        run.end("FAILED")
        raise
    write_json(out / REPORT, report)
    say(report)


def pruning_params(params: Params) -> Params:
    """Return the parameters of the fine-tuning, as its `params.yaml` records them."""
    section = params.prune
    train = dataclasses.replace(params.train, epochs=section.epochs, repeats=1, cluster="none", workers=0, address="")
    optimizer = dataclasses.replace(params.optimizer, learning_rate=section.learning_rate, ema=0.0)
    schedule = ScheduleParams(name="cosine", warmup_epochs=0.0)
    return dataclasses.replace(params, train=train, optimizer=optimizer, schedule=schedule)


def task_of(network: Any, data: Processed, params: Params) -> Any:
    """Return the fine-tuning, with what prunes in it."""
    from pipeline.input_pipeline import steps_per_epoch
    from pipeline.shrinking.fitting import Task
    from pipeline.shrinking.sparsity import Prune, Settled, kernels_of

    section, steps = params.prune, steps_per_epoch(data, params)
    kernels = kernels_of(network)
    if not kernels:
        raise UserError("the model has no kernel that could be pruned")
    schedule = (steps, section.epochs, section)
    return Task(
        network,
        network,
        before=[Prune(kernels, *schedule)],
        after=[Settled(*schedule)],
        what=f"pruning to {section.sparsity:.0%}",
    )


def saved(before: Path, after: Path) -> dict[str, Any]:
    """Return what pruning saves: zeros, and bytes of the file before and after, as it is and compressed by gzip."""
    from pipeline.model import load_model
    from pipeline.shrinking.sparsity import kernels_of, zeros_in

    zeros, weights = zeros_in(kernels_of(load_model(after)))
    sizes = {}
    for name, path in (("before", before), ("after", after)):
        content = path.read_bytes()
        sizes[name] = {"bytes": len(content), "gzip_bytes": len(gzip.compress(content, 6, mtime=0))}
    return {"zeros": zeros, "prunable_weights": weights, "sparsity": zeros / weights, **sizes}


def say(report: dict[str, Any]) -> None:
    """Print what it saves, and what it does not."""
    before, after = report["before"], report["after"]
    note(
        f"{report['zeros']:,} of {report['prunable_weights']:,} kernel weights are 0 ({report['sparsity']:.1%}); "
        f"the file has {after['bytes'] / 2**20:.1f} MiB ({before['bytes'] / 2**20:.1f} before), compressed by gzip "
        f"{after['gzip_bytes'] / 2**20:.1f} ({before['gzip_bytes'] / 2**20:.1f} before); no runtime here is faster for "
        "zeros (docs/export.md)"
    )
