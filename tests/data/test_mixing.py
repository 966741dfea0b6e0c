"""MixUp and CutMix against their definitions, and mixed batches of the pipeline."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from supcon_tf.data import mixing, views
from supcon_tf.data.pipeline import training_batches
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError

BATCH = 6
# All pixels of an image are its number, so a mixed pixel shows which images are in it.
IMAGES = tf.tile(tf.reshape(tf.range(BATCH, dtype=tf.float32), [BATCH, 1, 1, 1]), [1, 12, 10, 3])
TARGETS = tf.eye(BATCH)
MIXINGS = {"mixup": mixing.mixup, "cutmix": mixing.cutmix}


@pytest.mark.parametrize("name", MIXINGS)
def test_targets_are_mixed_by_the_same_shares_as_images(name):
    for seed in range(20):
        images, targets = MIXINGS[name](IMAGES, TARGETS, seed=seed)
        assert images.shape == IMAGES.shape
        np.testing.assert_allclose(tf.reduce_sum(targets, axis=1), 1.0, atol=1e-6)
        expected = tf.linalg.matvec(targets, tf.range(BATCH, dtype=tf.float32))
        np.testing.assert_allclose(tf.reduce_mean(images, axis=[1, 2, 3]), expected, atol=1e-5)


def test_mixup_blends_all_pixels_with_one_weight_for_the_batch():
    images, targets = mixing.mixup(IMAGES, TARGETS, seed=4, alpha=1.0)
    assert np.ptp(images.numpy(), axis=(1, 2, 3)).max() < 1e-6
    own = tf.linalg.diag_part(targets).numpy()
    partnered = own < 1  # An image may be its own partner.
    assert partnered.sum() >= 4
    np.testing.assert_allclose(own[partnered], own[partnered][0], atol=1e-6)


def test_cutmix_pastes_one_box_at_the_same_place_in_all_images():
    for seed in range(10):
        images, _ = mixing.cutmix(IMAGES, TARGETS, seed=seed)
        changed = images.numpy()[..., 0] != IMAGES.numpy()[..., 0]
        boxes = [where for where in changed if where.any()]
        for where in boxes:
            np.testing.assert_array_equal(where, boxes[0])
            rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
            assert where[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert set(np.unique(images)) <= set(range(BATCH))


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_weight_comes_from_the_beta_distribution(alpha):
    weights = []
    mix = tf.function(functools.partial(mixing.mixup, alpha=alpha))
    for seed in range(400):
        _, targets = mix(IMAGES[:2], TARGETS[:2], seed=tf.constant(seed, tf.int64))
        if targets[0, 0] < 1:
            weights.append(float(targets[0, 0]))
    # Half of the draws partner both images with themselves.
    assert len(weights) > 120
    assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_mean_area_of_cutmix_boxes_follows_from_beta_and_the_border():
    shares = []
    cut = tf.function(mixing.cutmix)
    images, targets = tf.zeros([2, 64, 64, 3]), tf.eye(2)
    for seed in range(600):
        _, mixed = cut(images, targets, seed=tf.constant(seed, tf.int64))
        if mixed[0, 0] < 1:
            shares.append(1 - float(mixed[0, 0]))
    # The mean share of a box of side r around a uniform centre is (r - r^2 / 4)^2; r^2 is uniform.
    sides = np.sqrt((np.arange(10_000) + 0.5) / 10_000)
    expected = np.mean((sides - sides**2 / 4) ** 2)
    assert abs(np.mean(shares) - expected) < 4 * np.std(shares) / np.sqrt(len(shares)) + 0.02


def test_cutmix_mixes_batches_with_this_probability():
    cut = tf.function(functools.partial(mixing.cutmix, probability=0.5))
    alone = [
        bool(tf.reduce_all(cut(IMAGES, TARGETS, seed=tf.constant(s, tf.int64))[1] == TARGETS))
        for s in range(300)
    ]
    # 0.5, and the few boxes without a pixel; the standard deviation of the share is 0.03.
    assert abs(np.mean(alone) - 0.5) < 0.12


@pytest.mark.parametrize("name", MIXINGS)
def test_mixing_depends_on_the_seed_only(name):
    first, again, other = (MIXINGS[name](IMAGES, TARGETS, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        (
            functools.partial(mixing.mixup, alpha=0),
            r"mixing\.mixup\.alpha must be a number >= 0\.02, got 0",
        ),
        (
            functools.partial(mixing.cutmix, alpha=-1),
            r"mixing\.cutmix\.alpha must be a number >= 0\.02, got -1",
        ),
        (
            functools.partial(mixing.cutmix, probability=2),
            "mixing.cutmix.probability must be a number >= 0 and <= 1, got 2",
        ),
    ],
)
def test_option_out_of_range_is_rejected(mix, message):
    with pytest.raises(UserError, match=message):
        mix(IMAGES, TARGETS, seed=0)


def batches(**options):
    pixels = tf.cast(tf.random.stateless_uniform([8, 9, 9, 3], [1, 2], 0, 256, tf.int32), tf.uint8)
    split = IndexedSplit(
        np.arange(8) % 3, lambda number: tf.gather(pixels, number), reads_batches=True
    )
    settings = {
        "preprocessing": views.Preprocessing(image_px=8),
        "augmentation": views.identity,
        "num_views": 1,
        "batch_size": 4,
        "num_classes": 3,
        "seed": 0,
        "mixing": mixing.mixup,
    }
    return training_batches(split, **{**settings, **options})


def test_mixed_batches_have_rows_as_labels_and_any_can_be_made_alone():
    whole = list(batches()(0, 5))
    assert whole[0][0].shape == (4, 1, 8, 8, 3)
    assert whole[0][1].shape == (4, 3)
    for (images, labels), (alone, of_alone) in zip(whole[3:], batches()(3, 5), strict=True):
        np.testing.assert_array_equal(images, alone)
        np.testing.assert_array_equal(labels, of_alone)


def test_mixing_without_labels_or_on_the_device_is_rejected():
    for options in ({"defer_to_device": True}, {"num_classes": 0}):
        with pytest.raises(UserError, match="mixing is for stages with labels, without defer_to"):
            batches(**options)


@pytest.mark.parametrize("mix", [mixing.mixup, mixing.cutmix])
def test_features_are_not_mixed(mix):
    with pytest.raises(UserError, match=r"got shape \(4, 7\): cached features cannot be mixed"):
        mix(tf.zeros([4, 7]), tf.eye(4), seed=0)


@pytest.mark.parametrize("name", list(MIXINGS))
def test_all_views_of_an_image_are_mixed_alike(name):
    # Images of one colour, their class's: all views are equal, and a mixed one shows its target.
    colors = tf.constant([-1.0, 0.0, 1.0])

    def paint(images, rows, *, seed):
        rows = tf.one_hot(tf.argmax(rows, axis=1), 3)
        painted = tf.ones_like(images) * tf.linalg.matvec(rows, colors)[:, None, None, None]
        return MIXINGS[name](painted, rows, seed=seed)

    ((images, targets),) = batches(num_views=3, batch_size=8, mixing=paint)(0, 1)
    assert images.shape == (8, 3, 8, 8, 3)
    np.testing.assert_array_equal(images[:, 0], images[:, 1])
    np.testing.assert_array_equal(images[:, 0], images[:, 2])
    expected = tf.linalg.matvec(targets, colors)
    np.testing.assert_allclose(tf.reduce_mean(images[:, 2], axis=[1, 2, 3]), expected, atol=1e-5)
    assert len(np.unique(targets)) > 2
