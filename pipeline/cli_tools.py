"""The commands of `cxr` beside the stages: they judge models, search for better ones, and look after a project."""

from typing import Any

from pipeline import commands
from pipeline.cli_adder import Add, adder
from pipeline.simulate_flags import add_flags


def add_judging(parsers: Any) -> None:
    """Add promote, score and compare."""
    add = adder(parsers)
    _promote(add)
    _comparing(add)


def add_tools(parsers: Any) -> None:
    """Add doctor, preset, ablation, sweep and simulate."""
    add = adder(parsers)
    _machine(add)
    _searching(add)
    _simulate(add)


def _promote(add: Add) -> None:
    promote = add(
        "promote",
        commands.run_promote,
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


def _comparing(add: Add) -> None:
    score = add(
        "score",
        commands.run_score,
        "score anybody's predictions table: the metrics, the plots and the page of `evaluate` and `report`",
        [
            ("predictions", None, "a table of image_id, patient_id, y_FINDING and p_FINDING (docs/score.md)"),
            ("--out", None, "the folder to write to"),
        ],
    )
    compare = add(
        "compare",
        commands.run_compare,
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


def _machine(add: Add) -> None:
    add("doctor", commands.run_doctor, "look at the machine: what works, what is missing, how to mend it", [])
    preset = add(
        "preset",
        commands.run_preset,
        "write params.yaml from a preset",
        [("--configs", "configs", "the folder of presets")],
    )
    preset.add_argument("name", nargs="?", help="a file of configs/, without .yaml (default: the present preset)")
    preset.add_argument("--archive", metavar="PATH", help="a local archive or folder in Kaggle's layout")


def _searching(add: Add) -> None:
    ablation = add(
        "ablation",
        commands.run_ablation,
        "change one parameter at a time and compare each on the validation split",
        [("--out", "reports/ablation", "the folder of the table")],
    )
    ablation.add_argument(
        "--only", nargs="+", default=[], metavar="VARIANT", help="these variants only, such as no-clahe (default: all)"
    )
    add(
        "sweep",
        commands.run_sweep,
        "search for parameters that raise validation AUC, as section `sweep` says; a stopped sweep goes on",
        [
            ("processed", "data/processed", "the processed images"),
            ("--out", "reports/sweep", "the folder of table, figure and trials"),
        ],
    )


def _simulate(add: Add) -> None:
    simulate = add(
        "simulate",
        commands.run_simulate,
        "draw simulated radiographs in the layout of NIH's sample",
        [("--out", None, "the folder to fill; it must be new or empty")],
    )
    simulate.late = add_flags
