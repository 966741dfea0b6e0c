"""Each image of a batch goes through the functions of its groups, and only these run."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data.augment.dispatch import by_group, one_by_one, where_chosen

# None of two commutes with another, so that the order shows.
STEPS = (lambda x, k: x, lambda x, k: 2 * x, lambda x, k: x + 1 + k, lambda x, k: x * x)
FUNCTIONS = tuple(
    lambda part, numbers, step=step: step(part, tf.cast(numbers, tf.float32)[:, None, None])
    for step in STEPS
)


def read_images(count):
    return np.random.default_rng(0).random((count, 3, 2)).astype(np.float32)


def loop(images, groups):
    results = []
    for number, (image, of_image) in enumerate(zip(images, groups, strict=True)):
        for group in of_image:
            image = STEPS[group](image, number)
        results.append(image)
    return np.array(results)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 40])
@pytest.mark.parametrize("known_size", [True, False])
def test_every_image_goes_through_its_functions_in_order(count, known_size):
    images = read_images(count)
    groups = np.random.default_rng(1).integers(0, 4, (count, 3)).astype(np.int32)
    function = tf.function(
        lambda images, groups: by_group(images, groups, FUNCTIONS),
        input_signature=[
            tf.TensorSpec([count if known_size else None, 3, 2]),
            tf.TensorSpec([count if known_size else None, 3], tf.int32),
        ],
    )
    result = function(images, groups)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, loop(images, groups), rtol=1e-6)
    eager = by_group(tf.constant(images), tf.constant(groups), FUNCTIONS)
    np.testing.assert_allclose(eager, loop(images, groups), rtol=1e-6)


@pytest.mark.parametrize("count", [3, 12])
def test_groups_without_an_image_are_not_run(count):
    ran = []

    def counted(group):
        def function(part, numbers):
            tf.py_function(lambda n: ran.append((group, n.numpy().tolist())), [numbers], [])
            return part

        return function

    functions = [counted(group) for group in range(3)]
    groups = np.full((count, 2), 1, np.int32)
    groups[1] = [2, 1]

    @tf.function
    def run(images):
        return by_group(images, tf.constant(groups), functions)

    images = read_images(count)
    np.testing.assert_array_equal(run(tf.constant(images)), images)
    assert {group for group, _ in ran} == {1, 2}
    times = [0] * count
    for number in itertools.chain.from_iterable(numbers for _, numbers in ran):
        times[number] += 1
    assert times == [2] * count


@pytest.mark.parametrize("count", [4, 9])
def test_only_the_chosen_images_change(count):
    images, chosen = read_images(count), np.arange(count) % 3 == 1
    result = where_chosen(tf.constant(images), tf.constant(chosen), FUNCTIONS[2])
    expected = images.copy()
    expected[chosen] += 1 + np.flatnonzero(chosen)[:, None, None].astype(np.float32)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    for nothing_or_all in (np.zeros(count, bool), np.ones(count, bool)):
        result = where_chosen(tf.constant(images), tf.constant(nothing_or_all), FUNCTIONS[1])
        np.testing.assert_array_equal(result, images * (1 + nothing_or_all[:, None, None]))


def test_a_batch_of_no_image_stays_one():
    empty = tf.zeros([0, 3, 2])

    @tf.function(input_signature=[tf.TensorSpec([None, 3, 2])])
    def run(images):
        return by_group(images, tf.zeros([tf.shape(images)[0], 2], tf.int32), FUNCTIONS)

    assert run(empty).shape == (0, 3, 2)


@pytest.mark.parametrize("count", [5, 4, 1])
@pytest.mark.parametrize("known", [True, False])
def test_one_by_one_hands_each_image_its_seed(count, known):
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
        return one_by_one(function, images, seeds)

    result = run(images, seeds)
    assert result.dtype == tf.uint8
    np.testing.assert_array_equal(result, images + seeds[:, None, None, None])
