"""params.yaml: every mistake is one line that names the key, the value and what is allowed."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.params import Params, ReportParams
from pipeline.params_file import as_dict, load_params, parse_params, read_yaml, write_yaml

# Line and control characters aside: no name or path that a person types holds them.
TYPED = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=60)


def load(folder: Path, text: str) -> Params:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return load_params(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, text)
    assert str(folder / "params.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("trian: {epochs: 3}", ["unknown key trian", "{'epochs': 3}", "allowed: dataset, download", "train"]),
        ("train: {epoch: 3}", ["unknown key train.epoch", "value 3", "allowed: seed, epochs, batch_size"]),
        ("train: {epochs: 5.5}", ["train.epochs is 5.5 (float)", "integer"]),
        ("train: {epochs: '5'}", ["train.epochs is '5' (str)", "integer"]),
        ("train: {epochs: 0}", ["train.epochs is 0 (int)", "greater than or equal to 1"]),
        ("train: {epochs: true}", ["train.epochs is True (bool)", "integer"]),
        ("optimizer: {learning_rate: fast}", ["optimizer.learning_rate is 'fast' (str)", "number"]),
        ("optimizer: {learning_rate: .nan}", ["optimizer.learning_rate is nan", "finite"]),
        ("optimizer: {learning_rate: .inf}", ["optimizer.learning_rate is inf", "finite"]),
        ("optimizer: {learning_rate: 0}", ["optimizer.learning_rate is 0", "greater than 0"]),
        ("train: {seed: -1}", ["train.seed is -1", "greater than or equal to 0"]),
        ("split: {train: 1.7}", ["split.train is 1.7 (float)", "less than or equal to 1"]),
        ("split: {val: 0}", ["split.val is 0", "greater than 0"]),
        ("split: {train: 0.7, val: 0.2, test: 0.2}", ["split: train + val + test is 1.1", "sum to 1"]),
        ("split: {protocol: random}", ["split.protocol is 'random' (str)", "'patient', 'official' or 'folder'"]),
        ("augment: {rotate: 46}", ["augment.rotate is 46", "less than or equal to 45"]),
        ("download: {sha256: XYZ}", ["download.sha256 is 'XYZ'", "[0-9a-f]{64}"]),
        ("download: {kaggle: ../secret}", ["download.kaggle is '../secret'", "pattern"]),
        ("model: resnet", ["model is 'resnet'", "a mapping of backbone, weights, initializer, dropout is needed"]),
        ("model:", ["model is None", "a mapping of backbone, weights, initializer, dropout is needed"]),
        ("- model", ["holds a list", "mapping of sections"]),
        ("loss: {name: asymmetric, gamma: 1.5}", ["gamma is 1.5, and only name focal reads it, not asymmetric"]),
        ("loss: {clip: 0.1}", ["loss: clip is 0.1, and only name asymmetric reads it, not focal"]),
        ("optimizer: {weight_decay: 0.1}", ["only name adamw or sgd reads it, not adam", "set name to adamw or sgd"]),
        ("optimizer: {name: sgd, weight_decay: 0.1, l2: 0.1}", ["l2 is 0.1 and weight_decay is 0.1", "set one to 0"]),
        ("schedule: {name: plateau, warmup_epochs: 2}", ["warmup_epochs is 2", "not plateau"]),
        ("schedule: {name: multi_step}", ["milestones is empty", "[10, 15]"]),
        ("schedule: {name: multi_step, milestones: [5, 5]}", ["milestones is [5, 5]", "rising order"]),
        ("schedule: {name: multi_step, milestones: [20]}", ["schedule.milestones is [20] of train.epochs 20"]),
        ("schedule: {warmup_epochs: 30}", ["schedule.warmup_epochs is 30 of train.epochs 20"]),
        ("model: {initializer: he_normal}", ["initializer is he_normal, and weights is imagenet", "weights to none"]),
        ("finetune: {unfreeze_from: layer4}", ["unfreeze_from is layer4", "ResNet50", "conv1, conv2, conv3"]),
        ("finetune: {unfreeze_from: none, head_epochs: 0}", ["nothing would be trained", "head_epochs"]),
        ("train: {cluster: ray}", ["workers is 0, and cluster is ray"]),
        ("train: {workers: 2}", ["workers is 2, and only cluster ray reads it, not none"]),
        ("train: {cluster: tf_config, repeats: 2}", ["repeats is 2, and cluster is tf_config"]),
        ("train: {cluster: ray, workers: 2, address: 'me:secret@head:1'}", ["address holds a user name or password"]),
        ("train: {cluster: tf_config, sampling: balanced}", ["sampling balanced is not offered in a cluster"]),
        (
            "{train: {sampling: balanced}, loss: {class_weights: balanced}}",
            ["train.sampling and loss.class_weights are both balanced", "counts rare findings twice"],
        ),
        ("just words", ["holds a str", "mapping of sections"]),
    ],
)
def test_a_mistake_is_named_with_its_value_and_what_is_allowed(tmp_path: Path, text: str, parts: list[str]) -> None:
    message = refusal(tmp_path, text)
    for part in parts:
        assert part in message


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, "train: {epochs: 0, seed: x}\nfoo: 1\n")
    for key in ("train.epochs", "train.seed", "foo"):
        assert key in message


@pytest.mark.parametrize(
    "text",
    [
        "schedule: {name: plateau, warmup_epochs: 0.0}",  # 0 switches a thing off, whoever reads it
        "{schedule: {name: multi_step, milestones: [3, 8]}, train: {epochs: 9}}",
        "{model: {weights: none}, finetune: {unfreeze_from: none, head_epochs: 0}}",  # not read then
        "{model: {backbone: EfficientNetV2B0}, finetune: {unfreeze_from: block5}}",
        "{optimizer: {name: sgd, momentum: 0.0, weight_decay: 1e-4}, loss: {name: asymmetric, clip: 0.0}}",
    ],
)
def test_what_makes_sense_together_is_taken(tmp_path: Path, text: str) -> None:
    load(tmp_path, text)


def test_yaml_1_2_as_dvc_reads_it(tmp_path: Path) -> None:
    assert load(tmp_path, "optimizer: {learning_rate: 1e-4}").optimizer.learning_rate == 0.0001
    assert load(tmp_path, "augment: {rotate: 7}").augment.rotate == 7.0
    assert load(tmp_path, "\ufeffreport: {title: NO}\r\n").report.title == "NO"
    for word in ("NO", "no", "off", "yes"):
        assert f"augment.enabled is '{word}' (str)" in refusal(tmp_path, f"augment: {{enabled: {word}}}")


@pytest.mark.parametrize("text", ["train: {seed: 1, seed: 2}", "train:\n  seed: 1\ntrain:\n  epochs: 2\n"])
def test_a_repeated_key_is_refused(tmp_path: Path, text: str) -> None:
    assert "duplicate key" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "train: {seed: 1",
        "a: b: c",
        "\tx: 1",
        "one: 1\n---\ntwo: 2\n",
        "report: {title: !!python/object/apply:os.system [true]}",
        "dataset: &a\n  x: *a\n",  # a section that contains itself
        "? [a, b]\n: c\n",  # a list as a key
        "a: \x07\n",  # a character that YAML forbids
        "report:\n  title: 2024-13-45\n",  # looks like a date and is none
        "a: " + "[" * 500,
    ],
)
def test_what_is_no_plain_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    refusal(tmp_path, text)


def test_other_encodings_folders_and_missing_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError, match="missing"):
        load_params(path)
    path.write_bytes("report: {title: 胸片}".encode("gbk"))
    with pytest.raises(UserError, match="not valid YAML"):
        load_params(path)
    with pytest.raises(UserError, match=str(tmp_path)):
        load_params(tmp_path)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n") == Params() == parse_params(as_dict(Params()), "the defaults")
    assert read_yaml(tmp_path / "params.yaml") == {}


def test_parameters_cannot_be_changed_by_accident() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Params().train.epochs = 3  # type: ignore[misc] # the very thing that must fail


@settings(max_examples=40)
@example(title=": x", archive="? x")
@given(title=TYPED, archive=TYPED)
def test_what_is_written_beside_a_model_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, title: str, archive: str
) -> None:
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    download = dataclasses.replace(Params().download, archive=archive)
    params = dataclasses.replace(Params(), report=ReportParams(title=title), download=download)
    write_yaml(path, as_dict(params))
    assert load_params(path) == params
