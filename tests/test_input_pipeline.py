"""What the network is fed: every training image once an epoch, the right label, augmentation on training alone."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from coded import N_TRAIN, SIZE, coded_image

from pipeline.augment import build_augment
from pipeline.errors import UserError
from pipeline.params import AugmentParams, Params, TrainParams
from pipeline.shards import META, open_processed, write_shard
from pipeline.training.holding import available_memory, describe_hold, hold
from pipeline.training.mixup import mix
from pipeline.training.sampling import portion_of

NO_CHANGE = AugmentParams(rotate=0.0, shift=0.0, scale=0.0, brightness=0.0, contrast=0.0)
BATCH = 8
STEPS = -(-N_TRAIN // BATCH)


@pytest.fixture(scope="module")
def data(coded_images):
    return open_processed(coded_images)


def params_of(mixup=0.0, **train):
    return Params(train=TrainParams(**{"batch_size": BATCH, "seed": 1} | train), augment=AugmentParams(mixup=mixup))


def batches_of(data, params, epochs, augment=None, first_epoch=0, worker=0, workers=1):
    from pipeline.input_pipeline import training_batches

    batches = training_batches(data, params, augment, epochs, first_epoch, worker, workers)
    return [(images.numpy(), labels.numpy()) for images, labels in batches]


def epochs_of(data, params, epochs, augment=None, first_epoch=0):
    """Return per epoch the images and labels, one array each."""
    batches = batches_of(data, params, epochs, augment, first_epoch)
    assert [len(images) for images, _ in batches] == [8, 8, 8, 8, 5] * (epochs - first_epoch)
    return [
        tuple(np.concatenate(part) for part in zip(*batches[start : start + STEPS], strict=True))
        for start in range(0, len(batches), STEPS)
    ]


def rows_of(images):
    return images[:, 0, 0, 0].astype(int)


def assert_same(first, second):
    for pair in zip(first, second, strict=True):
        for one, other in zip(*pair, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_every_training_image_once_an_epoch_with_its_own_label(data, where):
    for images, labels in epochs_of(data, params_of(hold=where), 3):
        assert images.dtype == np.uint8
        assert images.shape[1:] == (SIZE, SIZE, 1)
        assert sorted(rows_of(images)) == list(range(N_TRAIN))
        np.testing.assert_array_equal(labels @ (2 ** np.arange(6)), rows_of(images))


def test_the_pixels_are_those_that_were_written(data):
    from pipeline.scoring_input import images_in_order

    stored = np.concatenate([batch.numpy() for batch in images_in_order(data, "train", 10)])
    for where in ("memory", "disk"):
        images, _ = epochs_of(data, params_of(hold=where), 1)[0]
        np.testing.assert_array_equal(images, stored[rows_of(images)])


def test_order_depends_on_seed_and_epoch_alone(data):
    import tensorflow as tf

    first = [rows_of(images).tolist() for images, _ in epochs_of(data, params_of(), 3)]
    tf.random.set_seed(99)  # as another library may do
    assert first == [rows_of(images).tolist() for images, _ in epochs_of(data, params_of(), 3)]
    assert len({tuple(order) for order in first}) == 3
    assert first != [rows_of(images).tolist() for images, _ in epochs_of(data, params_of(seed=2), 3)]


@pytest.mark.parametrize("sampling", ["shuffled", "balanced"])
def test_in_memory_and_on_disk_give_the_same_bytes(data, sampling):
    augment = build_augment(AugmentParams(), seed=5)
    runs = [batches_of(data, params_of(0.4, hold=where, sampling=sampling), 2, augment) for where in ("memory", "disk")]
    assert_same(*runs)


def test_a_training_that_starts_later_sees_what_the_whole_one_saw_there(data):
    params, augment = params_of(0.4, sampling="balanced"), build_augment(AugmentParams(), seed=5)
    assert_same(batches_of(data, params, 3, augment)[STEPS:], batches_of(data, params, 3, augment, first_epoch=1))


@pytest.mark.parametrize("sampling", ["shuffled", "balanced"])
def test_the_rows_of_a_batch_are_told_without_reading_it(data, sampling):
    from pipeline.input_pipeline import rows_of_batch

    params = params_of(sampling=sampling)
    batches = batches_of(data, params, 2)
    for number in (0, 4, 7):
        images, _ = batches[number]
        assert rows_of_batch(data, params, *divmod(number, STEPS)).tolist() == rows_of(images).tolist()
    batches = batches_of(data, params, 2, first_epoch=1, worker=1, workers=2)  # the one that starts again
    assert rows_of_batch(data, params, 1, 4, 1, 2).tolist() == rows_of(batches[4][0]).tolist()
    with pytest.raises(ValueError, match="step is 5; an epoch has the steps 0 to 4"):
        rows_of_batch(data, params, 0, STEPS)


def test_balanced_batches_hold_the_images_as_often_as_drawn(data):
    from pipeline.training.sampling import draw_copies, repeat_factors

    factors = repeat_factors(data.labels[:N_TRAIN])
    for epoch, (images, labels) in enumerate(epochs_of(data, params_of(sampling="balanced"), 2)):
        counts = np.bincount(rows_of(images), minlength=N_TRAIN)
        assert counts.tolist() == draw_copies(factors, 1, epoch).tolist()
        np.testing.assert_array_equal(labels @ (2 ** np.arange(6)), rows_of(images))


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_share_the_files_and_take_the_same_steps(data, workers):
    from pipeline.input_pipeline import steps_per_epoch

    params = params_of(batch_size=12 if workers == 4 else 8)
    runs = [batches_of(data, params, 2, worker=worker, workers=workers) for worker in range(workers)]
    sizes = {tuple(len(images) for images, _ in run) for run in runs}
    assert len(sizes) == 1  # also of the ragged batch at the end
    assert len(runs[0]) == 2 * steps_per_epoch(data, params, workers)
    seen = [set(rows_of(np.concatenate([images for images, _ in run[: len(run) // 2]]))) for run in runs]
    assert set().union(*seen) == set(range(N_TRAIN))
    assert sum(map(len, seen)) == N_TRAIN  # none is seen by two
    for rows in seen:  # whole files: those of coded images hold ten rows each
        assert rows == {row for row in range(N_TRAIN) if row // 10 in {seen // 10 for seen in rows}}


def test_a_worker_with_fewer_images_starts_again_through_its_own(data):
    # Files of 10, 10, 10 and 7: two workers have 20 and 17, so that the second needs three of its images again.
    runs = [batches_of(data, params_of(), 1, worker=worker, workers=2) for worker in range(2)]
    counts = [np.unique(rows_of(np.concatenate([images for images, _ in run])), return_counts=True)[1] for run in runs]
    assert [sorted(found.tolist()) for found in counts] == [[1] * 20, [1] * 14 + [2] * 3]


def test_too_many_workers_are_refused_in_one_line(data):
    with pytest.raises(
        UserError, match=r"4 training file\(s\) for 5 workers.*set preprocess.shard_images to 1 or less"
    ):
        batches_of(data, params_of(batch_size=5), 1, workers=5)
    with pytest.raises(UserError, match=r"train.batch_size is 8, and 3 workers share it.*a multiple of 3"):
        batches_of(data, params_of(), 1, workers=3)


def test_where_the_images_lie_follows_from_their_size(data):
    assert describe_hold(data, params_of()) == "training images in memory (0 MB)"
    assert describe_hold(data, params_of(hold="disk")) == "training images read from disk (0 MB)"
    large = dataclasses.replace(data, meta=data.meta | {"size": 1_000_000})  # 37 TB
    assert hold(large, params_of(), portion_of(large, params_of())) is None
    assert "read from disk (37,000,000 MB, over a quarter of the" in describe_hold(large, params_of())
    with pytest.raises(UserError, match=r"need 37,000,000 MB and [\d,]+ MB are available; set it to disk or auto"):
        hold(large, params_of(hold="memory"), portion_of(large, params_of()))


def test_two_trainings_of_a_run_share_one_copy(data):
    portion = portion_of(data, params_of())
    first = hold(data, params_of(), portion)
    assert hold(data, params_of(seed=3), portion) is first
    half = portion_of(data, params_of(), 1, 2)
    assert len(hold(data, params_of(), half)) == len(half.rows) < len(first)


def test_a_containers_limit_counts_and_its_cached_files_do_not(tmp_path):
    free = available_memory(tmp_path)  # no such files
    assert free > 10_000_000
    stat = "anon 700\ninactive_file 200\n"
    for name, text in (("memory.max", "1000"), ("memory.current", "900"), ("memory.stat", stat)):
        (tmp_path / name).write_text(text)
    assert available_memory(tmp_path) == 1000 - 900 + 200
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) > 10_000_000
    old = tmp_path / "memory"
    old.mkdir()
    stat = "inactive_file 1\ntotal_inactive_file 50\n"
    for name, text in (("limit_in_bytes", "2000"), ("usage_in_bytes", "1500"), ("stat", stat)):
        (old / f"memory.{name}").write_text(text)
    assert available_memory(tmp_path) == 2000 - 1500 + 50


@pytest.mark.parametrize("rows", [range(1, 11), range(9)], ids=["other rows", "too few"])
def test_a_file_that_holds_other_images_than_the_index_says_is_an_error(data, tmp_path, rows):
    import tensorflow as tf

    folder = Path(shutil.copytree(data.folder, tmp_path / "processed"))
    rng = np.random.default_rng(0)
    write_shard(folder / "train-00000.tfrecord", [(row, coded_image(rng, row)) for row in rows])
    meta = json.loads((folder / META).read_text())
    damaged = dataclasses.replace(data, folder=folder, meta=meta)
    with pytest.raises(tf.errors.OpError, match=r"other images than the index says|contained only 9 elements"):
        batches_of(damaged, params_of(hold="disk"), 1)
    shards = [shard | {"sha256": "not those in memory"} for shard in meta["shards"]]
    with pytest.raises(UserError, match=r"train-00000.tfrecord does not hold the images that index.csv names"):
        batches_of(dataclasses.replace(damaged, meta=meta | {"shards": shards}), params_of(hold="memory"), 1)


def test_augmented_epochs_are_the_same_again_and_differ_from_each_other(data):
    runs = [epochs_of(data, params_of(), 2, build_augment(AugmentParams(), seed=5)) for _ in range(2)]
    assert_same(*runs)
    plain = epochs_of(data, params_of(), 2)
    assert not np.array_equal(runs[0][0][0], plain[0][0])
    np.testing.assert_array_equal(runs[0][0][1], plain[0][1])  # labels are left alone


def test_mixing_is_part_of_the_augmentation(data):
    params, plain = params_of(0.4), epochs_of(data, params_of(), 1)[0]
    assert_same([plain], epochs_of(data, params, 1))  # without augmentation the images come as they are
    assert_same(
        batches_of(data, params, 2, build_augment(NO_CHANGE, seed=5)),
        [mix(*batch, 0.4, 1, *divmod(number, STEPS)) for number, batch in enumerate(batches_of(data, params_of(), 2))],
    )
    halves = [
        batches_of(data, params, 1, build_augment(NO_CHANGE, seed=5), worker=worker, workers=2)[0] for worker in (0, 1)
    ]
    plain = [batches_of(data, params_of(), 1, worker=worker, workers=2)[0] for worker in (0, 1)]
    assert_same(halves, [mix(*batch, 0.4, 1, 0, 0, worker) for worker, batch in enumerate(plain)])


def test_validation_images_come_in_order_and_unchanged(data):
    from pipeline.scoring_input import images_in_order

    images = np.concatenate([batch.numpy() for batch in images_in_order(data, "val", 4)])
    assert rows_of(images).tolist() == data.rows("val")["row"].tolist()
    np.testing.assert_array_equal(images[0, :, :, 0], coded_image(np.random.default_rng(N_TRAIN), N_TRAIN))
    some = np.concatenate([batch.numpy() for batch in images_in_order(data, "train", 4, count=6)])
    assert rows_of(some).tolist() == list(range(6))


@pytest.mark.parametrize(("count", "batch"), [(None, 4), (6, 4), (6, 6), (3, 16)])
def test_a_network_scores_full_batches_and_each_image_once(data, count, batch):
    from pipeline.scoring_input import predict

    class Network:
        """Gives each image's row, as `rows_of` reads it, and remembers the sizes of the batches."""

        def predict(self, images, verbose):
            assert verbose == 0
            parts = [part.numpy() for part in images]
            self.sizes = {len(part) for part in parts}
            return rows_of(np.concatenate(parts))[:, None]

    network = Network()
    found = predict(network, data, "train", batch, count)
    assert found[:, 0].astype(int).tolist() == list(range(count or N_TRAIN))
    assert network.sizes == {batch}


def test_no_iteration_waits_for_a_thread_that_tunes(data):
    from pipeline.input_pipeline import training_batches
    from pipeline.scoring_input import images_in_order

    pipelines = images_in_order(data, "val", 4), training_batches(data, params_of(), None, 1)
    assert [each.options().autotune.enabled for each in pipelines] == [False, False]


def test_an_images_change_does_not_depend_on_its_neighbours():
    augment = build_augment(AugmentParams(horizontal_flip=0.5), seed=3)
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 1), dtype=np.uint8)
    rows = np.arange(5)
    together = augment(2, rows, images)
    for k in (4, 0, 2):
        np.testing.assert_array_equal(augment(2, rows[k : k + 1], images[k : k + 1])[0], together[k])
    assert not np.array_equal(augment(3, rows, images), together)


def test_threads_do_not_disturb_each_other():
    from concurrent.futures import ThreadPoolExecutor

    augment = build_augment(AugmentParams(), seed=3)
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 1), dtype=np.uint8)
    alone = [augment(epoch, np.arange(4), images) for epoch in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda epoch: augment(epoch, np.arange(4), images), range(40)))
    np.testing.assert_array_equal(alone, together)


def test_augmentation_of_nothing_changes_nothing():
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1), dtype=np.uint8)
    np.testing.assert_array_equal(build_augment(NO_CHANGE, seed=3)(0, np.arange(3), images), images)


@pytest.mark.parametrize(("key", "value", "least", "most"), [("blur", 2.0, 0.1, 1.0), ("sharpen", 1.0, 1.0, 2.0)])
def test_every_second_image_is_softer_or_sharper_by_at_most_what_is_said(key, value, least, most):
    noise = np.random.default_rng(0).normal(128, 8, (200, 32, 32, 1)).astype(np.uint8)  # not cut off at 0 or 255
    changed = build_augment(dataclasses.replace(NO_CHANGE, **{key: value}), seed=3)(0, np.arange(200), noise)
    detail = changed.std(axis=(1, 2, 3)) / noise.std(axis=(1, 2, 3))
    assert ((least <= detail) & (detail <= most)).all()
    assert abs(detail.mean() - 1) > 0.1
    same = (changed == noise).all(axis=(1, 2, 3)).mean()
    assert 0.35 < same < 0.65
    np.testing.assert_allclose(changed.mean(axis=(1, 2, 3)), noise.mean(axis=(1, 2, 3)), atol=1)


def test_a_certain_flip_is_a_mirror_image():
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1), dtype=np.uint8)
    flip = NO_CHANGE.__class__(rotate=0.0, shift=0.0, scale=0.0, brightness=0.0, contrast=0.0, horizontal_flip=1.0)
    np.testing.assert_array_equal(build_augment(flip, seed=3)(0, np.arange(3), images), images[:, :, ::-1])
