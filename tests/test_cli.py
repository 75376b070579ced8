"""The command line: help at once, a mistake in one line, and exit statuses that scripts can rely on."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import WriteNih

from pipeline.cli import build_parser, main
from pipeline.manifest import read_manifest

STAGES = ("download", "ingest", "split", "preprocess", "train", "evaluate", "report")


def commands() -> list[str]:
    (action,) = (item for item in build_parser()._actions if isinstance(item, argparse._SubParsersAction))
    return list(action.choices)


def cxr(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path, write_nih: WriteNih, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with parameters and raw images of 20 patients, its name with a space and Chinese characters."""
    monkeypatch.setattr("pipeline.parallel.available_cores", lambda: 1)  # several processes are tested elsewhere
    folder = tmp_path / "胸片 project"
    write_nih(folder / "data" / "raw", [f"{n:08d}_000.png,Mass,0,{n},060Y,F,PA,,,0.1,0.1" for n in range(1, 21)])
    (folder / "params.yaml").write_text("preprocess: {size: 32}\n", encoding="utf-8")
    return folder


def test_all_stages_are_commands() -> None:
    assert {*STAGES, "audit", "doctor", "preset", "simulate", "score", "compare", "promote", "ablation"} <= set(
        commands()
    )


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: cxr {command}")
    assert "--params FILE" in text
    assert "--quiet" in text


def test_help_lists_every_command_and_loads_nothing_heavy(repository: Path) -> None:
    code = (
        "import sys\nfrom pipeline.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = {'numpy', 'pandas', 'pydantic', 'tensorflow', 'cv2', 'PIL', 'rich', 'ruamel', 'mlflow', 'keras'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded: []\n")
    assert done.stderr == ""
    for command in commands():
        assert re.search(rf"\n    {command}\s+\w", done.stdout), command


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        [],
        ["ingest", "a", "b", "c"],
        ["simulate"],
        ["simulate", "--out", "x", "--seed", "y"],
    ],
)
def test_a_bad_command_line_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: cxr" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("cxr ")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["ingest", "nowhere", "m.csv"], ["nowhere is not a folder", "cxr download"]),
        (["split", "nowhere.csv"], ["nowhere.csv is missing", "dvc repro"]),
        (["preprocess", "nowhere.csv"], ["nowhere.csv is missing"]),
        (["audit", "nowhere.csv"], ["nowhere.csv is missing"]),
        (["ingest", "--params", "none.yaml"], ["none.yaml is missing"]),
        (["ingest", "--params", "bad.yaml"], ["bad.yaml: unknown key splitt", "allowed: dataset"]),
        (["ingest", "--params", "."], ["."]),
        (["preset", "none"], ["preset 'none'", "allowed:"]),
        (["simulate", "--out", "x", "--patients", "2"], ["simulate.patients is 2", "greater than or equal to 3"]),
        (["split", "data"], ["data"]),  # a folder where a table is needed
        (["ingest", "data/raw", "data"], ["data"]),  # a folder where a table shall be written
        (["ingest", "data/raw", "params.yaml/manifest.csv"], ["params.yaml"]),  # a file where a folder is needed
        (["ingest", "--quarantine", "data"], ["data"]),
    ],
)
def test_a_mistake_of_the_user_is_1_and_one_line(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    parts: list[str],
) -> None:
    monkeypatch.chdir(project)
    (project / "bad.yaml").write_text("splitt: {}\n", encoding="utf-8")
    assert main([*arguments, "-q"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"cxr {arguments[0]}: error: ")
    assert captured.err.count("\n") == 1
    for part in parts:
        assert part in captured.err


def test_a_mistake_in_a_process_of_its_own_has_no_traceback(project: Path) -> None:
    done = cxr("split", "none.csv", folder=project)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cxr split: error: none.csv is missing")
    assert len(done.stderr.splitlines()) == 1


def test_ingest_split_audit_and_preprocess_from_the_command_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    assert main(["ingest", "data/raw", "data/manifest.csv"]) == 0
    assert main(["split", "data/manifest.csv", "data/splits.csv"]) == 0
    assert main(["audit", "data/manifest.csv", "data/splits.csv"]) == 0
    assert "no patient and no picture is on two sides" in capsys.readouterr().out
    assert main(["preprocess", "data/manifest.csv", "data/splits.csv", "data/processed"]) == 0
    for name in (
        "data/processed/meta.json",
        "reports/data/quarantine.csv",
        "reports/data/ingest.json",
        "reports/data/split.json",
    ):
        assert (project / name).is_file(), name


def test_quiet_says_nothing_when_all_is_well(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    assert main(["ingest", "-q"]) == 0
    assert main(["split", "-q"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_audit_names_a_planted_leak_and_is_1(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    assert main(["ingest", "-q"]) == 0
    first, second = read_manifest(project / "data" / "manifest.csv").head(2).to_dict("records")
    text = (project / "data" / "manifest.csv").read_text(encoding="utf-8")
    (project / "data" / "manifest.csv").write_text(text.replace(second["sha256"], first["sha256"]), encoding="utf-8")
    lines = ["image_id,patient_id,split"]
    for side, row in (("train", first), ("test", second)):
        lines.append(f"{row['image_id']},{row['patient_id']},{side}")
    (project / "data" / "splits.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert main(["audit"]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"picture {first['sha256']} is in test and train")
    assert first["image_id"] in out
    assert second["image_id"] in out


def test_presets_from_the_command_line(project: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.chdir(project)
    configs = str(repository / "configs")
    assert main(["preset", "pneumonia", "--configs", configs, "--params", "new 参数.yaml", "-q"]) == 0
    text = (project / "new 参数.yaml").read_text(encoding="utf-8")
    assert "preset: pneumonia" in text
    assert main(["preset", "--configs", configs, "--params", "new 参数.yaml", "-q"]) == 0  # the present one
    assert (project / "new 参数.yaml").read_text(encoding="utf-8") == text
