"""What each command of `cxr` does once its line is parsed: load the parameters, call one function.

Nothing of the pipeline is imported before a command is chosen, so that help and errors come at once.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.simulate_flags import params_of

if TYPE_CHECKING:
    from pipeline.params import Params


def _start(args: argparse.Namespace) -> "Params":
    from pipeline.params_file import load_params
    from pipeline.progress import set_quiet

    set_quiet(args.quiet)
    return load_params(Path(args.params))


def run_download(args: argparse.Namespace) -> None:
    """Fetch or draw the images."""
    from pipeline.download import download, with_files

    params = _start(args)
    download(with_files(params, args.files) if args.files else params, Path(args.out))


def run_ingest(args: argparse.Namespace) -> None:
    """Write the manifest."""
    from pipeline.ingest import ingest

    boxes, thumbnails = Path(args.boxes), Path(args.thumbnails)
    ingest(Path(args.raw), Path(args.out), Path(args.quarantine), _start(args), boxes=boxes, thumbnails=thumbnails)


def run_split(args: argparse.Namespace) -> None:
    """Put patients into the splits."""
    from pipeline.split import split

    split(Path(args.manifest), Path(args.out), Path(args.summary), _start(args).split)


def run_preprocess(args: argparse.Namespace) -> None:
    """Write the shards."""
    from pipeline.preprocess import preprocess

    preprocess(Path(args.manifest), Path(args.splits), Path(args.out), Path(args.raw), _start(args))


def run_train(args: argparse.Namespace) -> None:
    """Fit the network."""
    from pipeline.train import train

    train(Path(args.processed), Path(args.out), _start(args))


def run_evaluate(args: argparse.Namespace) -> None:
    """Score the test split."""
    from pipeline.evaluate import evaluate

    places = Path(args.model), Path(args.processed), Path(args.reports), Path(args.boxes)
    evaluate(*places, _start(args), (Path(args.manifest), Path(args.raw)))


def run_export(args: argparse.Namespace) -> None:
    """Write the model in the formats that others run."""
    from pipeline.export import export

    export(Path(args.model), Path(args.processed), Path(args.out), Path(args.reports), _start(args))


def run_report(args: argparse.Namespace) -> None:
    """Write the page."""
    from pipeline.report import report

    params = _start(args)
    reports, manifest, raw = Path(args.reports), Path(args.manifest), Path(args.raw)
    report(reports, manifest, raw, Path(args.processed), Path(args.models), params)


def run_audit(args: argparse.Namespace) -> int:
    """Look for leaks; return 1 if there is one."""
    from pipeline.audit import audit, shown

    params = _start(args).audit
    tables = Path(args.manifest), Path(args.splits), Path(args.out)
    against = [Path(path) for path in args.against]
    errors = audit(*tables, params, Path(args.thumbnails), Path(args.raw), against)
    also = " or in another set" if against else ""
    print("\n".join(shown(errors) or [f"no patient and no picture is on two sides{also}"]))
    return 1 if errors else 0


def run_labels(args: argparse.Namespace) -> None:
    """Add the truth to the log."""
    from pipeline.labels import add_labels

    _start(args)
    add_labels(args.log, Path(args.labels))


def run_monitor(args: argparse.Namespace) -> int:
    """Judge a log; return 0 quiet, 3 warning, 4 alarm."""
    from pipeline.monitor import monitor

    return monitor(Path(args.reference), args.log, Path(args.out), _start(args), args.since)


def run_retrain(args: argparse.Namespace) -> int:
    """Train with the log's labelled films; return 3 if the model is refused."""
    from pipeline.retrain import Project, retrain

    places = (Path(path) for path in (args.manifest, args.splits, args.raw, args.evidence, args.records))
    after = Path(args.after) if args.after else None
    project, params = Project(*places), _start(args)
    done = retrain(args.log, Path(args.films), Path(args.images), Path(args.out), project, params, after)
    return 0 if done else 3


def run_doctor(args: argparse.Namespace) -> int:
    """Look at the machine; return 1 if something is missing."""
    from pipeline.doctor import doctor

    return 1 if doctor(_start(args), Path()) else 0


def run_score(args: argparse.Namespace) -> None:
    """Score anybody's predictions."""
    from pipeline.score import score

    labels = Path(args.labels) if args.labels else None
    score(Path(args.predictions), Path(args.out), _start(args), labels, args.patients)


def run_compare(args: argparse.Namespace) -> None:
    """Compare two tables of predictions."""
    from pipeline.compare import compare

    labels, out = (Path(path) if path else None for path in (args.labels, args.out))
    compare(Path(args.a), Path(args.b), _start(args).evaluate, labels, args.patients, out)


def run_promote(args: argparse.Namespace) -> int:
    """Decide on the champion; return 3 if the model is refused."""
    from pipeline.promote import promote, undo
    from pipeline.promotion_steps import Places

    params, places = _start(args), Places(Path(args.evidence), Path(args.records))
    if args.undo:
        undo(places, params, dry_run=args.dry_run)
        return 0
    return 0 if promote(Path(args.model), Path(args.reports), places, params, dry_run=args.dry_run) else 3


def run_distill(args: argparse.Namespace) -> None:
    """Train a student."""
    from pipeline.distill import distill

    distill(Path(args.model), Path(args.processed), Path(args.out), _start(args))


def run_prune(args: argparse.Namespace) -> None:
    """Make weights 0."""
    from pipeline.prune import prune

    prune(Path(args.model), Path(args.processed), Path(args.out), _start(args))


def run_preset(args: argparse.Namespace) -> None:
    """Write params.yaml."""
    from pipeline.presets import apply_preset
    from pipeline.progress import set_quiet

    set_quiet(args.quiet)
    name = args.name or _start(args).dataset.preset
    apply_preset(name, Path(args.archive) if args.archive else None, Path(args.configs), Path(args.params))


def run_ablation(args: argparse.Namespace) -> int:
    """Run the ablations; return 1 if one failed."""
    from pipeline.ablation import ablation
    from pipeline.progress import set_quiet

    set_quiet(args.quiet)
    if Path(args.params) != Path("params.yaml"):
        raise UserError(f"--params is {args.params}; an ablation runs dvc.yaml, which reads params.yaml: change that")
    return 0 if ablation(Path(), Path(args.out), args.only) else 1


def run_sweep(args: argparse.Namespace) -> None:
    """Search for parameters."""
    from pipeline.sweep import sweep

    sweep(Path(args.processed), Path(args.out), _start(args))


def run_simulate(args: argparse.Namespace) -> None:
    """Draw radiographs."""
    from pipeline.datasets.simulated import simulate
    from pipeline.progress import set_quiet

    set_quiet(args.quiet)
    simulate(params_of(args), Path(args.out))


def run_predict(args: argparse.Namespace) -> int:
    """Answer for films; return 3 if some files could not be used."""
    from pipeline.params import Params
    from pipeline.predict import Options, predict
    from pipeline.progress import set_quiet

    set_quiet(args.quiet)
    # A model is asked far from the project that made it, too: there the defaults do.
    here = args.params != "params.yaml" or Path(args.params).exists()
    params = _start(args) if here else Params()
    out, overlay, explain = (Path(path) if path else None for path in (args.out, args.overlay, args.explain))
    options = Options(
        out=out,
        overlay=overlay,
        explain=explain,
        json=args.json,
        flagged=args.flagged,
        point=args.point,
        threads=args.threads,
        log=args.log,
    )
    return 3 if predict(Path(args.model), args.files, options, params).failed else 0


def run_serve(args: argparse.Namespace) -> None:
    """Answer over HTTP."""
    import dataclasses

    from pipeline.serve import Places, serve

    params = _start(args)
    given = {name: value for name in ("host", "port") if (value := getattr(args, name)) is not None}
    token_file = Path(args.token_file) if args.token_file else None
    places = Places(Path(args.model), Path(args.explain), Path(args.reports), token_file)
    serve(places, dataclasses.replace(params, serve=dataclasses.replace(params.serve, **given)))
