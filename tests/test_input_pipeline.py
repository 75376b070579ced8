"""What the network is fed: every training image once an epoch, the right label, augmentation on training alone."""

import numpy as np
import pytest
from coded import N_TRAIN, SIZE, coded_image

from pipeline.augment import build_augment
from pipeline.params import AugmentParams
from pipeline.shards import open_processed

NO_CHANGE = AugmentParams(rotate=0.0, shift=0.0, scale=0.0, brightness=0.0, contrast=0.0)


@pytest.fixture(scope="module")
def data(coded_images):
    return open_processed(coded_images)


def epochs_of(data, epochs, seed=1, augment=None, first_epoch=0):
    """Return per epoch the images and labels, one array each."""
    from pipeline.input_pipeline import training_batches

    steps = -(-N_TRAIN // 8)
    batches = [
        (images.numpy(), labels.numpy())
        for images, labels in training_batches(data, 8, epochs, seed, augment, first_epoch)
    ]
    assert len(batches) == steps * (epochs - first_epoch)
    return [
        tuple(np.concatenate(part) for part in zip(*batches[start : start + steps], strict=True))
        for start in range(0, len(batches), steps)
    ]


def rows_of(images):
    return images[:, 0, 0, 0].astype(int)


def test_every_training_image_once_an_epoch_with_its_own_label(data):
    for images, labels in epochs_of(data, 3):
        assert images.dtype == np.uint8
        assert images.shape[1:] == (SIZE, SIZE, 1)
        assert sorted(rows_of(images)) == list(range(N_TRAIN))
        np.testing.assert_array_equal(labels @ (2 ** np.arange(6)), rows_of(images))


def test_order_depends_on_seed_and_epoch_alone(data):
    first = [rows_of(images).tolist() for images, _ in epochs_of(data, 3)]
    assert first == [rows_of(images).tolist() for images, _ in epochs_of(data, 3)]
    assert len({tuple(order) for order in first}) == 3
    assert first != [rows_of(images).tolist() for images, _ in epochs_of(data, 3, seed=2)]
    # A training that starts at the third epoch sees what the whole one saw there.
    assert rows_of(epochs_of(data, 3, first_epoch=2)[0][0]).tolist() == first[2]


def test_augmented_epochs_are_the_same_again_and_differ_from_each_other(data):
    runs = [epochs_of(data, 2, augment=build_augment(AugmentParams(), seed=5)) for _ in range(2)]
    for (first, _), (again, _) in zip(*runs, strict=True):
        np.testing.assert_array_equal(first, again)
    plain = epochs_of(data, 2)
    assert not np.array_equal(runs[0][0][0], plain[0][0])
    np.testing.assert_array_equal(runs[0][0][1], plain[0][1])  # labels are left alone


def test_validation_images_come_in_order_and_unchanged(data):
    from pipeline.input_pipeline import images_in_order

    images = np.concatenate([batch.numpy() for batch in images_in_order(data, "val", 4)])
    assert rows_of(images).tolist() == data.rows("val")["row"].tolist()
    np.testing.assert_array_equal(images[0, :, :, 0], coded_image(np.random.default_rng(N_TRAIN), N_TRAIN))
    some = np.concatenate([batch.numpy() for batch in images_in_order(data, "train", 4, count=6)])
    assert rows_of(some).tolist() == list(range(6))


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


def test_a_certain_flip_is_a_mirror_image():
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1), dtype=np.uint8)
    flip = NO_CHANGE.__class__(rotate=0.0, shift=0.0, scale=0.0, brightness=0.0, contrast=0.0, horizontal_flip=1.0)
    np.testing.assert_array_equal(build_augment(flip, seed=3)(0, np.arange(3), images), images[:, :, ::-1])
