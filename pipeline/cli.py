"""The `cxr` command: parse, load the parameters, call one stage.

Nothing but argparse is imported before a command is chosen, so that help and errors come at once.
"""

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.params import Params


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status.

    0, 1 for a user's mistake, 2 for a bad command line, 3 for a model that `promote` refused.
    """
    args = build_parser().parse_args(argv)
    try:
        return int(args.call(args) or 0)
    except UserError as error:
        print(f"cxr {args.command}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"cxr {args.command}: stopped; run it again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as in `cxr doctor | head -1`
        sys.stderr.close()
        return 1
    except OSError as error:  # a folder where a file is needed, no permission, a full disk
        if error.filename is None:
            raise
        print(f"cxr {args.command}: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; the documentation is generated from it."""
    parser = argparse.ArgumentParser(
        prog="cxr",
        description="Chest X-ray classifiers, from a clean machine to a model one can defend.",
        epilog="`cxr COMMAND --help` explains one command; `dvc repro` runs all stages in order.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_stages(commands)
    _add_tools(commands)
    return parser


def _add_stages(commands: Any) -> None:
    add = _adder(commands)
    download = add("download", _download, "fetch or draw the images", [("--out", "data/raw", "the raw folder")])
    download.add_argument(
        "--files",
        nargs="+",
        metavar="PATTERN",
        help="from Kaggle only the files that match, such as 'images_001/*' (default: download.files)",
    )
    add(
        "ingest",
        _ingest,
        "read the data set's own layout, check every file, write the manifest",
        [
            ("raw", "data/raw", "the raw folder"),
            ("out", "data/manifest.csv", "the manifest"),
            ("--quarantine", "reports/data/quarantine.csv", "what is kept out or looks wrong, and why"),
            ("--boxes", "data/boxes.csv", "the boxes that readers drew"),
            ("--thumbnails", "data/thumbnails.npy", "tiny copies, for the audit"),
        ],
    )
    add(
        "split",
        _split,
        "put patients into train, val and test, and audit the result",
        [
            ("manifest", "data/manifest.csv", "the manifest"),
            ("out", "data/splits.csv", "the splits"),
            ("--summary", "reports/data/split.json", "counts and prevalences"),
        ],
    )
    audit = add(
        "audit",
        _audit,
        "look for patients and pictures on two sides of the split, and for copies",
        [
            ("manifest", "data/manifest.csv", "the manifest"),
            ("splits", "data/splits.csv", "the splits"),
            ("--out", "reports/data/audit.csv", "the suspects; their counts go beside it"),
            ("--thumbnails", "data/thumbnails.npy", "what `cxr ingest` wrote"),
            ("--raw", "data/raw", "the raw folder, read only where thumbnails are missing"),
        ],
    )
    audit.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="MANIFEST",
        help="another set's manifest, which must share no picture with this one; may be repeated",
    )
    add(
        "preprocess",
        _preprocess,
        "resize, equalise and shard the images",
        [
            ("manifest", "data/manifest.csv", "the manifest"),
            ("splits", "data/splits.csv", "the splits"),
            ("out", "data/processed", "the processed images"),
            ("--raw", "data/raw", "the raw folder"),
        ],
    )
    add(
        "train",
        _train,
        "fine-tune the network and keep its best epoch",
        [("processed", "data/processed", "the processed images"), ("out", "models", "the folder of models")],
    )
    add(
        "evaluate",
        _evaluate,
        "score the model on the test split, with intervals",
        [
            ("model", "models/model.keras", "the model"),
            ("processed", "data/processed", "the processed images"),
            ("reports", "reports", "the folder of reports"),
            ("--boxes", "data/boxes.csv", "the boxes that readers drew"),
        ],
    )
    add(
        "report",
        _report,
        "write the HTML report",
        [
            ("reports", "reports", "the folder of reports"),
            ("--manifest", "data/manifest.csv", "the manifest"),
            ("--raw", "data/raw", "the raw folder"),
            ("--processed", "data/processed", "the processed images"),
            ("--models", "models", "the folder of models"),
        ],
    )


def _add_tools(commands: Any) -> None:
    add = _adder(commands)
    promote = add(
        "promote",
        _promote,
        "move the alias `champion` to this model if it is not worse than the champion; exit status 3 if it is refused",
        [
            ("model", "models/model.keras", "the model"),
            ("reports", "reports", "its evaluation"),
            ("--evidence", "models/champion", "the champions' evidence"),
            ("--records", "models/promotions", "the decisions"),
        ],
    )
    promote.add_argument("--undo", action="store_true", help="move the alias back to the champion before")
    promote.add_argument("--dry-run", action="store_true", help="print the decision and store nothing")
    score = add(
        "score",
        _score,
        "score anybody's predictions table: the metrics, the plots and the page of `evaluate` and `report`",
        [
            ("predictions", None, "a table of image_id, patient_id, y_FINDING and p_FINDING (docs/score.md)"),
            ("--out", None, "the folder to write to"),
        ],
    )
    compare = add(
        "compare",
        _compare,
        "compare two models on the same images, paired: differences, intervals and p values",
        [("a", None, "the predictions table of one model"), ("b", None, "that of the other")],
    )
    compare.add_argument("--out", metavar="PATH", help="also write compare.json, compare.csv and compare.html there")
    for command in (score, compare):
        command.add_argument(
            "--labels", metavar="FILE", help="the labels, if they stand in another table: y_FINDING or NIH's own"
        )
        command.add_argument(
            "--patients",
            choices=("column", "nih"),
            default="column",
            help="where the patient comes from: column patient_id, or NIH's file names (default: column)",
        )
    add("doctor", _doctor, "look at the machine: what works, what is missing, how to mend it", [])
    preset = add(
        "preset", _preset, "write params.yaml from a preset", [("--configs", "configs", "the folder of presets")]
    )
    preset.add_argument("name", nargs="?", help="a file of configs/, without .yaml (default: the present preset)")
    preset.add_argument("--archive", metavar="PATH", help="a local archive or folder in Kaggle's layout")
    ablation = add(
        "ablation",
        _ablation,
        "change one parameter at a time and compare each on the validation split",
        [("--out", "reports/ablation", "the folder of the table")],
    )
    ablation.add_argument(
        "--only", nargs="+", default=[], metavar="VARIANT", help="these variants only, such as no-clahe (default: all)"
    )
    add(
        "sweep",
        _sweep,
        "search for parameters that raise validation AUC, as section `sweep` says; a stopped sweep goes on",
        [
            ("processed", "data/processed", "the processed images"),
            ("--out", "reports/sweep", "the folder of table, figure and trials"),
        ],
    )
    simulate = add(
        "simulate",
        _simulate,
        "draw simulated radiographs in the layout of NIH's sample",
        [("--out", None, "the folder to fill; it must be new or empty")],
    )
    for name, text in (
        ("patients", "how many patients"),
        ("seed", "the same seed draws the same films"),
        ("size", "pixels a side"),
    ):
        simulate.add_argument(f"--{name}", type=int, metavar="N", help=f"{text} (default: as in the parameter file)")


def _adder(commands: Any) -> Callable[..., argparse.ArgumentParser]:
    """Return a function that adds a command with its paths and the options that all commands have."""

    def add(
        name: str, call: Callable[[argparse.Namespace], int | None], text: str, paths: list[tuple[str, str | None, str]]
    ) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + "."
        )
        for path, default, meaning in paths:
            shown = f"{meaning} (default: {default})" if default else meaning
            if path.startswith("--"):
                parser.add_argument(path, default=default, required=default is None, metavar="PATH", help=shown)
            else:
                parser.add_argument(path, nargs="?" if default else None, default=default, help=shown)
        parser.add_argument(
            "--params", default="params.yaml", metavar="FILE", help="parameter file (default: params.yaml)"
        )
        parser.add_argument("-q", "--quiet", action="store_true", help="no progress; warnings and errors only")
        parser.set_defaults(call=call)
        return parser

    return add


def _version() -> str:
    from pipeline import __version__

    return f"cxr {__version__}"


def _start(args: argparse.Namespace) -> "Params":
    from pathlib import Path

    from pipeline.params_file import load_params
    from pipeline.progress import set_quiet

    set_quiet(args.quiet)
    return load_params(Path(args.params))


def _download(args: argparse.Namespace) -> None:
    from pathlib import Path

    from pipeline.download import download, with_files

    params = _start(args)
    download(with_files(params, args.files) if args.files else params, Path(args.out))


def _ingest(args: argparse.Namespace) -> None:
    from pathlib import Path

    from pipeline.ingest import ingest

    boxes, thumbnails = Path(args.boxes), Path(args.thumbnails)
    ingest(Path(args.raw), Path(args.out), Path(args.quarantine), _start(args), boxes=boxes, thumbnails=thumbnails)


def _split(args: argparse.Namespace) -> None:
    from pathlib import Path

    from pipeline.split import split

    split(Path(args.manifest), Path(args.out), Path(args.summary), _start(args).split)


def _preprocess(args: argparse.Namespace) -> None:
    from pathlib import Path

    from pipeline.preprocess import preprocess

    preprocess(Path(args.manifest), Path(args.splits), Path(args.out), Path(args.raw), _start(args))


def _train(args: argparse.Namespace) -> None:
    from pathlib import Path

    from pipeline.train import train

    train(Path(args.processed), Path(args.out), _start(args))


def _evaluate(args: argparse.Namespace) -> None:
    from pathlib import Path

    from pipeline.evaluate import evaluate

    evaluate(Path(args.model), Path(args.processed), Path(args.reports), Path(args.boxes), _start(args))


def _report(args: argparse.Namespace) -> None:
    from pathlib import Path

    from pipeline.report import report

    params = _start(args)
    reports, manifest, raw = Path(args.reports), Path(args.manifest), Path(args.raw)
    report(reports, manifest, raw, Path(args.processed), Path(args.models), params)


def _audit(args: argparse.Namespace) -> int:
    from pathlib import Path

    from pipeline.audit import audit, shown

    params = _start(args).audit
    tables = Path(args.manifest), Path(args.splits), Path(args.out)
    against = [Path(path) for path in args.against]
    errors = audit(*tables, params, Path(args.thumbnails), Path(args.raw), against)
    also = " or in another set" if against else ""
    print("\n".join(shown(errors) or [f"no patient and no picture is on two sides{also}"]))
    return 1 if errors else 0


def _doctor(args: argparse.Namespace) -> int:
    from pathlib import Path

    from pipeline.doctor import doctor

    return 1 if doctor(_start(args), Path()) else 0


def _score(args: argparse.Namespace) -> None:
    from pathlib import Path

    from pipeline.score import score

    labels = Path(args.labels) if args.labels else None
    score(Path(args.predictions), Path(args.out), _start(args), labels, args.patients)


def _compare(args: argparse.Namespace) -> None:
    from pathlib import Path

    from pipeline.compare import compare

    labels, out = (Path(path) if path else None for path in (args.labels, args.out))
    compare(Path(args.a), Path(args.b), _start(args).evaluate, labels, args.patients, out)


def _promote(args: argparse.Namespace) -> int:
    from pathlib import Path

    from pipeline.promote import promote, undo
    from pipeline.promotion_steps import Places

    params, places = _start(args), Places(Path(args.evidence), Path(args.records))
    if args.undo:
        undo(places, params, dry_run=args.dry_run)
        return 0
    return 0 if promote(Path(args.model), Path(args.reports), places, params, dry_run=args.dry_run) else 3


def _preset(args: argparse.Namespace) -> None:
    from pathlib import Path

    from pipeline.presets import apply_preset
    from pipeline.progress import set_quiet

    set_quiet(args.quiet)
    name = args.name or _start(args).dataset.preset
    apply_preset(name, Path(args.archive) if args.archive else None, Path(args.configs), Path(args.params))


def _ablation(args: argparse.Namespace) -> int:
    from pathlib import Path

    from pipeline.ablation import ablation
    from pipeline.progress import set_quiet

    set_quiet(args.quiet)
    if Path(args.params) != Path("params.yaml"):
        raise UserError(f"--params is {args.params}; an ablation runs dvc.yaml, which reads params.yaml: change that")
    return 0 if ablation(Path(), Path(args.out), args.only) else 1


def _sweep(args: argparse.Namespace) -> None:
    from pathlib import Path

    from pipeline.sweep import sweep

    sweep(Path(args.processed), Path(args.out), _start(args))


def _simulate(args: argparse.Namespace) -> None:
    import dataclasses
    from pathlib import Path

    from pipeline.datasets.simulated import simulate
    from pipeline.params_file import parse_params

    given = {name: getattr(args, name) for name in ("patients", "seed", "size")}
    values = dataclasses.asdict(_start(args).simulate) | {
        key: value for key, value in given.items() if value is not None
    }
    simulate(parse_params({"simulate": values}, "the command line").simulate, Path(args.out))


if __name__ == "__main__":
    sys.exit(main())
