"""AugMix: mixing weights, severity and levels."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import augment
from supcon_tf.data.augment import augmix_chains as module
from supcon_tf.data.augment.operations import OPERATIONS, Ranges, parameter
from supcon_tf.errors import UserError


def pictures(count):
    return tf.constant(np.random.default_rng(0).random((count, 16, 16, 3)), tf.float32)


def test_batch_equals_single_images():
    images = pictures(6)
    mix = tf.function(augment.augmix)
    together = mix(images, seed=tf.range(6, dtype=tf.int64))
    for number in range(6):
        alone = augment.augmix(images[number], seed=number)
        np.testing.assert_allclose(alone, together[number], atol=1e-6)
    assert together.numpy().min() >= 0
    assert together.numpy().max() <= 1 + 1e-6


def test_mixing_weight_is_uniform(monkeypatch):
    # All chains return white: the result is image + share * (1 - image) for any chain weights.
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


def test_higher_severity_changes_the_image_more():
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
        ({"severity": 11}, r"severity must be a number >= 0.1 and <= 10, got 11"),
        ({"severity": "3"}, r"severity must be a number >= 0.1 and <= 10, got '3'"),
        ({"chains": 0}, "chains must be an integer >= 1, got 0"),
        ({"chains": 2.5}, "chains must be an integer >= 1, got 2.5"),
    ],
)
def test_out_of_range_options_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        augment.augmix(pictures(1), seed=[0], **options)


@pytest.mark.parametrize("level", [0.1, 2.0, 2.6, 5.0, 9.9])
def test_levels_match_the_paper(level):
    # Posterize keeps 4 - int(0.4 level) bits, Solarize inverts from 256 - int(25.6 level); the
    # others are proportional to the level.
    expected = {"Posterize": 4 - int(0.4 * level), "Solarize": 256 - int(25.6 * level)}
    expected |= {"Rotate": 3.0 * level, "ShearX": 0.03 * level, "TranslateY": 224 / 30 * level}
    for name, value in expected.items():
        operation = OPERATIONS.index(name)
        full = parameter(name, 10, Ranges(translate=224 / 3))
        result = module._at_level(tf.constant(full, tf.float32), tf.constant(operation), level)
        np.testing.assert_allclose(result, value, rtol=1e-6)
