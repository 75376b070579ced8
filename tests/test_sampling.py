"""Which images a worker reads, and how often: all of them, evenly shared out, rare findings oftener."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.params import Params, TrainParams
from pipeline.shards import Processed
from pipeline.training.sampling import draw_copies, portion_of, repeat_factors


def processed(counts):
    """Return the table of files with so many images each; the files themselves are not needed."""
    shards = [f"train-{n:05d}.tfrecord" for n, count in enumerate(counts) for _ in range(count)]
    table = pd.DataFrame({"row": np.arange(len(shards), dtype=float), "shard": shards, "split": "train"})
    listed = [{"name": f"train-{n:05d}.tfrecord", "split": "train", "sha256": ""} for n in range(len(counts))]
    return Processed(Path("processed"), {"size": 32, "findings": [], "shards": listed}, table)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.data())
def test_every_file_goes_to_one_worker_and_all_take_the_same_steps(counts, draw):
    workers = draw.draw(st.integers(1, len(counts)))
    data, params = processed(counts), Params(train=TrainParams(batch_size=3 * workers))
    portions = [portion_of(data, params, worker, workers) for worker in range(workers)]
    assert sorted(file for portion in portions for file in portion.files) == sorted(data.files("train"))
    assert sorted(np.concatenate([portion.rows for portion in portions])) == list(range(sum(counts)))
    assert {portion.batch for portion in portions} == {3}
    largest = max(len(portion.rows) for portion in portions)
    assert {(portion.images, portion.steps) for portion in portions} == {(largest, -(-largest // 3))}
    for portion in portions:
        assert portion.passes * len(portion.rows) >= portion.images > (portion.passes - 1) * len(portion.rows)
        for file, start, end in zip(portion.files, portion.bounds[:-1], portion.bounds[1:], strict=True):
            rows = portion.rows[start:end]
            assert (data.table["shard"][rows] == Path(file).name).all()
            assert len(rows) == counts[int(Path(file).stem[-5:])]
    # Graham 1969, theorem 3, over the mean, which no sharing out can be under.
    assert largest <= max(max(counts), (4 / 3) * sum(counts) / workers + max(counts))


def test_files_of_one_size_are_shared_out_evenly():
    data, params = processed([10] * 9 + [3]), Params(train=TrainParams(batch_size=12))
    assert [len(portion_of(data, params, worker, 4).rows) for worker in range(4)] == [30, 23, 20, 20]


def test_repeat_factors_are_those_of_the_paper_worked_out_by_hand():
    # 16 images: 9 without, 4 with the first finding, 1 with the second, 1 with both, 1 unknown; so 10 of "none".
    labels = np.array([[0, 0]] * 9 + [[1, 0]] * 4 + [[0, 1]] + [[1, 1]] + [[np.nan, 0]], np.float32)
    first, second = (10 / 5) ** 0.5, (10 / 2) ** 0.5
    expected = [1.0] * 9 + [first] * 4 + [second] + [second] + [1.0]
    np.testing.assert_allclose(repeat_factors(labels), expected, rtol=1e-12)


def test_where_most_images_have_the_finding_those_without_come_oftener():
    labels = np.array([[1]] * 8 + [[0]] * 2, np.float32)
    np.testing.assert_allclose(repeat_factors(labels), [1.0] * 8 + [2.0] * 2, rtol=1e-12)


@given(st.lists(st.floats(1, 50), min_size=1, max_size=200), st.integers(0, 1000), st.integers(0, 100))
def test_an_epoch_has_as_many_images_as_the_set_each_about_as_often_as_expected(factors, seed, epoch):
    weights = np.array(factors)
    copies = draw_copies(weights, seed, epoch)
    expected = weights / weights.sum() * len(weights)
    assert copies.sum() == len(weights)
    assert (copies >= np.floor(expected - 1e-9)).all()
    assert (copies <= np.ceil(expected + 1e-9)).all()
    np.testing.assert_array_equal(copies, draw_copies(weights, seed, epoch))


@pytest.mark.parametrize("factors", [[1.0] * 40 + [2.5] * 10, [2.0, 9.0, 19.0]])
def test_over_many_epochs_an_image_is_seen_in_proportion_to_its_factor(factors):
    weights = np.array(factors)
    seen = np.mean([draw_copies(weights, 3, epoch) for epoch in range(2000)], axis=0)
    # Whole numbers next to the expectation: a standard deviation of at most 1/2, of 2,000 means 0.011.
    np.testing.assert_allclose(seen, weights / weights.sum() * len(weights), atol=0.06)


def test_seed_and_epoch_decide_the_copies():
    weights = np.linspace(1, 9, 50)
    drawn = {tuple(draw_copies(weights, seed, epoch)) for seed in (1, 2) for epoch in (0, 1, 2)}
    assert len(drawn) == 6


@pytest.mark.parametrize("labels", [np.ones((4, 2)), np.zeros((4, 2)), np.full((4, 2), np.nan)])
def test_images_of_one_kind_are_all_seen_once(labels):
    factors = repeat_factors(labels.astype(np.float32))
    assert draw_copies(factors, 1, 0).tolist() == [1, 1, 1, 1]
