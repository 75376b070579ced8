"""Presets: what is in the repository is whole, and hand edits are never lost."""

import dataclasses
import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.params_file import as_dict, load_params
from pipeline.presets import apply_preset, load_preset, preset_names, render

TYPED = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=60)


def test_params_yaml_is_what_its_preset_writes_out(repository: Path) -> None:
    # Values that a user changed are allowed; keys, their order and what is said of them are those of the code.
    text = (repository / "params.yaml").read_text(encoding="utf-8")
    written = render(load_params(repository / "params.yaml"))
    assert [line.split() for line in text.splitlines()] == [line.split() for line in written.splitlines()]


def test_every_preset_of_the_repository_parses_and_names_itself(repository: Path) -> None:
    names = preset_names(repository / "configs")
    assert {"simulated", "nih-sample", "nih", "pneumonia"} <= set(names)
    for name in names:
        params = load_preset(name, repository / "configs")
        assert params.dataset.preset == name
        assert params.download.source != "kaggle" or params.download.kaggle


def test_every_key_is_written_with_a_comment() -> None:
    lines = render(Params()).splitlines()
    for values in as_dict(Params()).values():
        for key in values:
            line = next(line for line in lines if line.startswith(f"  {key}: "))
            assert " # " in line, line


@settings(max_examples=50)
@given(title=TYPED, archive=TYPED)
def test_render_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, title: str, archive: str) -> None:
    path = tmp_path_factory.mktemp("render") / "params.yaml"
    params = Params()
    params = dataclasses.replace(
        params,
        report=dataclasses.replace(params.report, title=title),
        download=dataclasses.replace(params.download, archive=archive),
    )
    path.write_text(render(params), encoding="utf-8")
    assert load_params(path) == params


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "configs"
    folder.mkdir()
    kaggle = "download: {source: kaggle, kaggle: owner/data}\n"
    (folder / "a.yaml").write_text(f"{kaggle}train: {{epochs: 3}}\n", encoding="utf-8")
    (folder / "b.yaml").write_text(f"{kaggle}dataset: {{adapter: pneumonia}}\n", encoding="utf-8")
    return folder


def test_a_new_file_is_the_preset(configs: Path, tmp_path: Path) -> None:
    apply_preset("a", None, configs, tmp_path / "params.yaml")
    assert load_params(tmp_path / "params.yaml") == load_preset("a", configs)
    assert load_params(tmp_path / "params.yaml").train.epochs == 3


def test_the_same_preset_again_keeps_hand_edits_and_the_very_file(configs: Path, tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    apply_preset("a", None, configs, target)
    edited = target.read_text(encoding="utf-8").replace("epochs: 3 ", "epochs: 9 ") + "# mine\n"
    target.write_text(edited, encoding="utf-8")
    inode = target.stat().st_ino
    apply_preset("a", None, configs, target)
    assert target.read_text(encoding="utf-8") == edited
    assert target.stat().st_ino == inode
    assert not (tmp_path / "params.yaml.bak").exists()


def test_another_preset_keeps_hand_edits_beside_it(configs: Path, tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    apply_preset("a", None, configs, target)
    edited = target.read_text(encoding="utf-8").replace("epochs: 3 ", "epochs: 9 ")
    target.write_text(edited, encoding="utf-8")
    apply_preset("b", None, configs, target)
    assert load_params(target) == load_preset("b", configs)
    assert (tmp_path / "params.yaml.bak").read_text(encoding="utf-8") == edited


def test_another_preset_leaves_no_copy_of_an_untouched_file(configs: Path, tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    apply_preset("a", None, configs, target)
    apply_preset("b", None, configs, target)
    assert load_params(target) == load_preset("b", configs)
    assert not (tmp_path / "params.yaml.bak").exists()


@pytest.mark.parametrize("name", ["data.zip", "my archive.zip", "胸片 数据 #1.zip", "a: b.zip", "- x, {y}.zip"])
def test_an_archive_is_pinned_by_its_hash(configs: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "params.yaml"
    archive = tmp_path / "档案 folder" / name
    archive.parent.mkdir()
    archive.write_bytes(b"bytes of the archive")
    apply_preset("a", archive, configs, target)
    download = load_params(target).download
    assert (download.source, download.archive) == ("local", str(archive))
    assert download.sha256 == hashlib.sha256(b"bytes of the archive").hexdigest()


def test_an_archive_stays_until_another_is_given_and_edits_stay_with_it(configs: Path, tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    archive = tmp_path / "data.zip"
    archive.write_bytes(b"first")
    apply_preset("a", archive, configs, target)
    target.write_text(target.read_text(encoding="utf-8").replace("epochs: 3 ", "epochs: 9 "), encoding="utf-8")
    before = load_params(target)
    apply_preset("a", None, configs, target)
    assert load_params(target) == before
    archive.write_bytes(b"second")
    apply_preset("a", archive, configs, target)
    after = load_params(target)
    assert after.download.sha256 == hashlib.sha256(b"second").hexdigest()
    assert after.train.epochs == 9


def test_a_relative_archive_is_written_as_a_full_path(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.zip").write_bytes(b"x")
    apply_preset("a", Path("data.zip"), configs, tmp_path / "params.yaml")
    assert load_params(tmp_path / "params.yaml").download.archive == str(tmp_path / "data.zip")


def test_a_preset_that_draws_its_images_takes_no_archive(configs: Path, tmp_path: Path) -> None:
    (configs / "drawn.yaml").write_text("download: {source: simulated}\n", encoding="utf-8")
    (tmp_path / "data.zip").write_bytes(b"x")
    target = tmp_path / "params.yaml"
    apply_preset("a", None, configs, target)
    target.write_text(target.read_text(encoding="utf-8").replace("epochs: 3 ", "epochs: 9 "), encoding="utf-8")
    before = target.read_bytes()
    with pytest.raises(UserError, match=r"draws its own images.*a or b"):
        apply_preset("drawn", tmp_path / "data.zip", configs, target)
    assert target.read_bytes() == before
    assert not (tmp_path / "params.yaml.bak").exists()  # nothing was replaced, so there is nothing to keep


def test_mistakes_are_named_and_nothing_is_written(configs: Path, tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    for name in ("c", "../configs/a", "a.yaml", ""):
        with pytest.raises(UserError, match="allowed: a, b"):
            apply_preset(name, None, configs, target)
    with pytest.raises(UserError, match=r"missing\.zip.*does not exist"):
        apply_preset("a", tmp_path / "missing.zip", configs, target)
    assert not target.exists()


@pytest.mark.parametrize("text", ["dataset:\n", "dataset: nih\n", "dataset: [1]\n"])
def test_a_preset_whose_dataset_is_no_mapping_is_one_line(configs: Path, text: str) -> None:
    (configs / "odd.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"odd\.yaml.*dataset"):
        load_preset("odd", configs)
