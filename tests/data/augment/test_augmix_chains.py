"""AugMix: what is mixed, how strongly, and that a seed gives an image."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import augment
from supcon_tf.data.augment import augmix_chains as module
from supcon_tf.data.augment.operations import OPERATIONS, Ranges, parameter


def pictures(count):
    return tf.constant(np.random.default_rng(0).random((count, 16, 16, 3)), tf.float32)


def test_a_batch_gives_what_its_images_give_alone():
    images = pictures(6)
    mix = tf.function(augment.augmix)
    together = mix(images, seed=tf.range(6, dtype=tf.int64))
    for number in range(6):
        alone = augment.augmix(images[number], seed=number)
        np.testing.assert_allclose(alone, together[number], atol=1e-6)
    assert together.numpy().min() >= 0
    assert together.numpy().max() <= 1 + 1e-6


def test_the_result_lies_between_the_image_and_the_mixture_with_a_uniform_share(monkeypatch):
    # Chains that give white: the result is image + share * (1 - image), whatever their weights.
    monkeypatch.setattr(
        module,
        "apply_in_turn",
        lambda image, *_: tf.fill(tf.shape(image), tf.constant(255, tf.uint8)),
    )
    black = tf.zeros([400, 2, 2, 3])
    mix = tf.function(augment.augmix)
    shares = mix(black, seed=tf.range(400, dtype=tf.int64)).numpy()[:, 0, 0, 0]
    # Standard error of the mean: 0.289 / 20 = 0.014.
    assert abs(shares.mean() - 0.5) < 0.06
    assert abs(shares.std() - 0.289) < 0.04


def test_more_severity_changes_more():
    images = pictures(64)
    seeds = tf.range(64, dtype=tf.int64)
    mix = tf.function(augment.augmix)
    changes = [
        float(tf.reduce_mean(tf.abs(mix(images, seed=seeds, severity=severity) - images)))
        for severity in (0.1, 10)
    ]
    assert changes[0] < changes[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"severity": 11}, r"severity must be in \[0.1, 10\], got 11"),
        ({"chains": 0}, "chains must be >= 1, got 0"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        augment.augmix(pictures(1), seed=[0], **options)


@pytest.mark.parametrize("level", [0.1, 2.0, 2.6, 5.0, 9.9])
def test_levels_mean_what_they_do_in_the_paper(level):
    # Posterize keeps 4 - int(0.4 level) bits, Solarize inverts from 256 - int(25.6 level) on; the
    # rest grows with the level.
    expected = {"Posterize": 4 - int(0.4 * level), "Solarize": 256 - int(25.6 * level)}
    expected |= {"Rotate": 3.0 * level, "ShearX": 0.03 * level, "TranslateY": 224 / 30 * level}
    for name, value in expected.items():
        operation = OPERATIONS.index(name)
        full = parameter(name, 10, Ranges(translate=224 / 3))
        found = module._at_level(tf.constant(full, tf.float32), tf.constant(operation), level)
        np.testing.assert_allclose(found, value, rtol=1e-6)
