"""Pruned weights are 0 and stay 0, as many as were asked for, also in a training that was killed."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_network, write_trained

from pipeline.errors import UserError
from pipeline.params import Params, PruneParams
from pipeline.params_file import parse_params
from pipeline.prune import prune

shares = st.floats(0, 0.45)


def params_of(folder) -> Params:
    return parse_params(
        {
            "preprocess": {"size": 32},
            "train": {"batch_size": 8, "auc_images": 8},
            "evaluate": {"resamples": 100},
            "prune": {"epochs": 3, "sparsity": 0.75, "every": 2, "end": 0.5},
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db", "system_metrics": False, "register": ""},
        },
        "the test",
    )


@given(shares, shares, st.floats(0.01, 0.99), st.integers(2, 1000))
def test_sparsity_rises_from_nothing_to_what_was_asked_for(begin, more, sparsity, steps):
    from pipeline.shrinking.sparsity import sparsity_at

    params = PruneParams(begin=begin, end=begin + more + 0.05, sparsity=sparsity)
    found = [sparsity_at(step, steps, params) for step in range(steps + 1)]
    assert found[0] == 0
    assert (np.diff(found) >= 0).all()
    assert found[-1] == pytest.approx(sparsity)


def test_sparsity_is_zhu_and_guptas():
    from pipeline.shrinking.sparsity import sparsity_at

    # Halfway s (1 - (1 - 1/2)^3) = 7/8 s, at a quarter s (1 - 27/64) = 37/64 s.
    params = PruneParams(begin=0.0, end=1.0, sparsity=0.8)
    assert sparsity_at(50, 100, params) == pytest.approx(0.7)
    assert sparsity_at(25, 100, params) == pytest.approx(0.4625)


@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 9))
def test_the_smallest_weights_go(size, sparsity, seed):
    from pipeline.shrinking.sparsity import mask_of

    kernel = np.random.default_rng(seed).normal(size=(size, 2)).astype(np.float32)
    mask = mask_of(kernel, sparsity)
    assert (mask == 0).sum() == round(sparsity * kernel.size)
    gone, kept = np.abs(kernel[mask == 0]), np.abs(kernel[mask == 1])
    assert not len(gone) or not len(kept) or gone.max() <= kept.min()


def test_equal_weights_go_by_their_place():
    from pipeline.shrinking.sparsity import mask_of

    assert mask_of(np.ones(4, np.float32), 0.5).tolist() == [0, 0, 1, 1]


def test_first_convolution_and_head_keep_all_their_weights():
    from pipeline.shrinking.sparsity import kernels_of

    assert [kernel.path.split("/")[-2] for kernel in kernels_of(tiny_network())] == ["conv1", "conv2"]


@pytest.fixture(scope="module")
def pruned(coded_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned")
    model, params = write_trained(folder, coded_images), params_of(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        prune(model, coded_images, folder / "pruned", params)
    return model, folder / "pruned", params


def test_the_kept_model_has_the_sparsity_that_was_asked_for(pruned):
    from pipeline.model import load_model
    from pipeline.shrinking.sparsity import kernels_of

    _, out, _ = pruned
    kernels = [np.asarray(kernel) for kernel in kernels_of(load_model(out / "model.keras"))]
    assert [(kernel == 0).sum() for kernel in kernels] == [round(0.75 * kernel.size) for kernel in kernels]
    report = json.loads((out / "pruning.json").read_text())
    assert report["zeros"] == sum((kernel == 0).sum() for kernel in kernels)
    assert report["after"]["gzip_bytes"] < report["before"]["gzip_bytes"]


def test_an_epoch_with_fewer_zeros_is_never_the_best(pruned):
    lines = (pruned[1] / "history.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    for row in rows:
        assert (row["val_auc"] == "nan") == (float(row["sparsity"]) < 0.75)
        assert row["dense_val_auc"] != "nan"
    assert rows[0]["val_auc"] == "nan"


def test_a_stopped_pruning_goes_on_to_the_same_bytes(pruned, coded_images, tmp_path, monkeypatch):
    from pipeline.training.state import KeptState

    model, out, params = pruned
    write, monkey = KeptState.write, pytest.MonkeyPatch()

    def stopped(self, epoch, *args, **kwargs):
        write(self, epoch, *args, **kwargs)
        if epoch == 0:
            raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    with monkey.context() as patch:
        patch.setattr(KeptState, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            prune(model, coded_images, tmp_path / "pruned", params)
    assert [path.name for path in (tmp_path / "pruned").iterdir()] == [".partial"]
    prune(model, coded_images, tmp_path / "pruned", params)
    assert (tmp_path / "pruned" / "model.keras").read_bytes() == (out / "model.keras").read_bytes()


def test_the_models_own_folder_is_not_overwritten(pruned, coded_images):
    model, _, params = pruned
    with pytest.raises(UserError, match="is the model's own folder"):
        prune(model, coded_images, model.parent, params)
