"""Each image goes through the branches it chooses, and only those run."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data.augment.dispatch import apply_where, dispatch, map_images

# No two of these commute, so the order matters.
STEPS = (lambda x, k: x, lambda x, k: 2 * x, lambda x, k: x + 1 + k, lambda x, k: x * x)
FUNCTIONS = tuple(
    lambda part, numbers, step=step: step(part, tf.cast(numbers, tf.float32)[:, None, None])
    for step in STEPS
)


def read_images(count):
    return np.random.default_rng(0).random((count, 3, 2)).astype(np.float32)


def loop(images, choices):
    results = []
    for number, (image, steps) in enumerate(zip(images, choices, strict=True)):
        for step in steps:
            image = STEPS[step](image, number)
        results.append(image)
    return np.array(results)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 40])
@pytest.mark.parametrize("known_size", [True, False])
def test_images_go_through_their_branches_in_order(count, known_size):
    images = read_images(count)
    choices = np.random.default_rng(1).integers(0, 4, (count, 3)).astype(np.int32)
    function = tf.function(
        lambda images, choices: dispatch(images, choices, FUNCTIONS),
        input_signature=[
            tf.TensorSpec([count if known_size else None, 3, 2]),
            tf.TensorSpec([count if known_size else None, 3], tf.int32),
        ],
    )
    result = function(images, choices)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, loop(images, choices), rtol=1e-6)
    eager = dispatch(tf.constant(images), tf.constant(choices), FUNCTIONS)
    np.testing.assert_allclose(eager, loop(images, choices), rtol=1e-6)


@pytest.mark.parametrize("count", [3, 12])
def test_branches_without_images_do_not_run(count):
    ran = []

    def counted(branch):
        def function(part, numbers):
            tf.py_function(lambda n: ran.append((branch, n.numpy().tolist())), [numbers], [])
            return part

        return function

    functions = [counted(branch) for branch in range(3)]
    choices = np.full((count, 2), 1, np.int32)
    choices[1] = [2, 1]

    @tf.function
    def run(images):
        return dispatch(images, tf.constant(choices), functions)

    images = read_images(count)
    np.testing.assert_array_equal(run(tf.constant(images)), images)
    assert {branch for branch, _ in ran} == {1, 2}
    times = [0] * count
    for number in itertools.chain.from_iterable(numbers for _, numbers in ran):
        times[number] += 1
    assert times == [2] * count


@pytest.mark.parametrize("count", [4, 9])
def test_only_images_under_the_mask_change(count):
    images, mask = read_images(count), np.arange(count) % 3 == 1
    result = apply_where(tf.constant(images), tf.constant(mask), FUNCTIONS[2])
    expected = images.copy()
    expected[mask] += 1 + np.flatnonzero(mask)[:, None, None].astype(np.float32)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    for nothing_or_all in (np.zeros(count, bool), np.ones(count, bool)):
        result = apply_where(tf.constant(images), tf.constant(nothing_or_all), FUNCTIONS[1])
        np.testing.assert_array_equal(result, images * (1 + nothing_or_all[:, None, None]))


def test_empty_batch_is_accepted():
    empty = tf.zeros([0, 3, 2])

    @tf.function(input_signature=[tf.TensorSpec([None, 3, 2])])
    def run(images):
        return dispatch(images, tf.zeros([tf.shape(images)[0], 2], tf.int32), FUNCTIONS)

    assert run(empty).shape == (0, 3, 2)


@pytest.mark.parametrize("count", [5, 4, 1])
@pytest.mark.parametrize("known", [True, False])
def test_map_images_passes_each_image_its_seed(count, known):
    images = np.arange(count * 2 * 2 * 3, dtype=np.uint8).reshape(count, 2, 2, 3)
    seeds = np.array([3, 1, 4, 1, 5])[:count]

    def function(image, seed):
        assert image.shape == (2, 2, 3)
        assert seed.shape == ()
        return image + tf.cast(seed, tf.uint8)

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec(images.shape, tf.uint8),
            tf.TensorSpec([count if known else None], tf.int64),
        ],
    )
    def run(images, seeds):
        return map_images(function, images, seeds)

    result = run(images, seeds)
    assert result.dtype == tf.uint8
    np.testing.assert_array_equal(result, images + seeds[:, None, None, None])
