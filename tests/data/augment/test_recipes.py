"""The recipes: same seed, same image; ranges and shapes; which steps are drawn how often."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from supcon_tf.data import augment
from supcon_tf.data.augment import operations, policies, recipes
from supcon_tf.data.augment.operations import OPERATIONS

RECIPES = {
    "identity": augment.identity,
    "simclr": functools.partial(augment.simclr, warp_probability=0.5),
    "simclr_torchvision": functools.partial(augment.simclr, strength=0.5, jitter="torchvision"),
    "autoaugment": augment.autoaugment,
    "randaugment": augment.randaugment,
    "stacked_randaugment": functools.partial(augment.stacked_randaugment, warp_probability=0.5),
}
RANDOM_RECIPES = {name: recipe for name, recipe in RECIPES.items() if name != "identity"}


def image_of(height, width):
    return tf.constant(np.random.default_rng(0).random((height, width, 3)), tf.float32)


def mapped(recipe, image, count, parallel_calls=2):
    dataset = tf.data.Dataset.range(count).map(
        lambda number: recipe(image, seed=number), num_parallel_calls=parallel_calls
    )
    assert dataset.element_spec.shape == image.shape
    return np.stack(list(dataset.as_numpy_iterator()))


@functools.cache
def compiled(name):
    """Traced once: tracing takes longer than running."""
    function = tf.function(lambda image, seed: RECIPES[name](image, seed=seed), autograph=False)
    return function.get_concrete_function(
        tf.TensorSpec([24, 31, 3]), tf.TensorSpec([], tf.int64, name="seed")
    )


@functools.cache
def sixty_images(name, parallel_calls=1):
    return mapped(compiled(name), image_of(24, 31), 60, parallel_calls)


@pytest.mark.parametrize("name", RECIPES)
def test_a_seed_gives_the_same_bits_eagerly_and_in_any_parallel_map(name):
    np.testing.assert_array_equal(sixty_images(name, parallel_calls=4), sixty_images(name))
    for number in range(5):
        result = RECIPES[name](image_of(24, 31), seed=number)
        np.testing.assert_array_equal(result, sixty_images(name)[number])


@pytest.mark.parametrize("name", RANDOM_RECIPES)
def test_images_stay_in_range_and_keep_shape_and_type_but_differ_between_seeds(name):
    images = sixty_images(name)
    assert images.shape == (60, 24, 31, 3)
    assert images.dtype == np.float32
    assert images.min() >= 0.0
    assert images.max() <= 1.0
    # On noise several of AutoAugment's outcomes agree.
    assert len({image.tobytes() for image in images}) > 20


@functools.cache
def compiled_for_batches(name):
    return tf.function(
        lambda images, seeds: RECIPES[name](images, seed=seeds),
        input_signature=[
            tf.TensorSpec([None, None, None, 3]),
            tf.TensorSpec([None], tf.int64),
        ],
        autograph=False,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_a_batch_gives_what_each_of_its_images_gives_alone(name):
    images = np.random.default_rng(1).random((60, 24, 31, 3)).astype(np.float32)
    images[:30] = image_of(24, 31)
    batch = compiled_for_batches(name)(images, tf.range(60, dtype=tf.int64)).numpy()
    # A warp takes the rounding of its positions times the steps of the noise.
    atol = 1e-5 if name in ("simclr", "stacked_randaugment") else 2e-6
    np.testing.assert_allclose(batch[:30], sixty_images(name)[:30], atol=atol)
    for number in range(30, 60):
        alone = compiled(name)(tf.constant(images[number]), tf.constant(number, tf.int64))
        np.testing.assert_allclose(batch[number], alone, atol=atol)


@pytest.mark.parametrize("name", RECIPES)
def test_images_may_have_any_number_of_axes_in_front(name):
    images = tf.constant(np.random.default_rng(1).random((2, 3, 8, 9, 3)), tf.float32)
    seeds = tf.constant([[5, 1, 4], [-2, 2**40, 0]], tf.int64)
    result = RECIPES[name](images, seed=seeds)
    assert result.shape == images.shape
    flat = RECIPES[name](tf.reshape(images, [6, 8, 9, 3]), seed=tf.reshape(seeds, [6]))
    np.testing.assert_array_equal(tf.reshape(flat, images.shape), result)


def test_simclr_with_one_matrix_and_static_shapes_compiles_and_gives_the_same_images():
    images = np.random.default_rng(1).random((16, 24, 32, 3)).astype(np.float32)
    seeds = tf.range(16, dtype=tf.int64)
    plain = augment.simclr(images, seed=seeds, exact=False).numpy()
    compiled = tf.function(
        functools.partial(augment.simclr, exact=False, static_shapes=True), jit_compile=True
    )
    result = compiled(tf.constant(images), seed=seeds)
    np.testing.assert_allclose(result, plain, atol=5e-6)
    assert len({image.tobytes() for image in plain}) == 16
    for number in (0, 3, 15):
        alone = augment.simclr(images[number], seed=number, exact=False)
        np.testing.assert_allclose(alone, plain[number], atol=5e-6)


@pytest.mark.parametrize("options", [{"exact": True}, {"exact": False, "warp_probability": 0.1}])
def test_static_shapes_that_cannot_be_are_named(options):
    with pytest.raises(ValueError, match="static_shapes needs exact = False and warp_probability"):
        augment.simclr(image_of(2, 2), seed=0, static_shapes=True, **options)


@pytest.mark.parametrize("name", RECIPES)
def test_unknown_sizes_work_down_to_one_pixel(name):
    function = tf.function(
        lambda image, seed: RECIPES[name](image, seed=seed),
        input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec([], tf.int64)],
        autograph=False,
    )
    for size in ((1, 1), (2, 5), (24, 24)):
        for number in range(10):
            result = function(image_of(*size), tf.constant(number, tf.int64)).numpy()
            assert result.shape == (*size, 3)
            assert result.min() >= 0.0
            assert result.max() <= 1.0


def test_identity_gives_the_image_itself():
    image = image_of(3, 4)
    assert augment.identity(image, seed=0) is image


def test_simclr_without_any_step_leaves_the_image_or_makes_it_grey():
    image = image_of(8, 8)
    images, seeds = tf.tile(image[None], [400, 1, 1, 1]), tf.range(400, dtype=tf.int64)
    result = augment.simclr(images, seed=seeds, strength=0, blur_probability=0).numpy()
    unchanged = np.all(result == image.numpy(), axis=(1, 2, 3))
    assert np.all(result[~unchanged][..., :1] == result[~unchanged])
    # Binomial(400, 0.8): standard deviation of the share 0.02.
    assert abs(unchanged.mean() - 0.8) < 0.08


def test_policies_and_randaugment_without_operations_only_round_to_bytes():
    image = image_of(8, 8)
    result = augment.randaugment(image, seed=0, layers=0)
    rounded = np.floor(image * 255 + np.float32(0.5)) / np.float32(255)
    np.testing.assert_allclose(result, rounded, rtol=1e-6)


def pass_operations_on(monkeypatch):
    """Lets the recipes write the indices they draw into a pixel: the last one first."""

    @tf.autograph.experimental.do_not_convert
    def write(image, *, operation, parameter, seed):
        del parameter, seed
        drawn = tf.reshape(tf.cast(operation, tf.uint8), [1, 1, 1])
        return tf.concat([drawn, image[..., :2]], axis=-1)

    monkeypatch.setattr(operations, "apply", write)


def drawn_pairs(recipe, count):
    compiled = tf.function(recipe, autograph=False)
    images = compiled(tf.zeros([count, 1, 1, 3]), seed=tf.range(count, dtype=tf.int64))
    pixels = np.rint(images.numpy() * 255).astype(int)
    return [(first, second) for second, first, _ in pixels.reshape(-1, 3)]


def test_randaugment_draws_all_pairs_of_the_17_outcomes_equally_often(monkeypatch):
    pass_operations_on(monkeypatch)
    pairs = drawn_pairs(augment.randaugment, 2890)
    counts = [pairs.count(pair) for pair in itertools.product(range(17), repeat=2)]
    assert sum(counts) == 2890
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("policy", ["released", "imagenet", "cifar10", "svhn"])
def test_autoaugment_draws_the_steps_of_its_table_with_their_probabilities(monkeypatch, policy):
    pass_operations_on(monkeypatch)
    pairs = drawn_pairs(functools.partial(augment.autoaugment, policy=policy), 2500)
    probability = {}
    for (first, p, _), (second, q, _) in policies.TABLES[policy][0]:
        for a, b, share in (
            (first, second, p * q),
            (first, "Identity", p * (1 - q)),
            ("Identity", second, (1 - p) * q),
            ("Identity", "Identity", (1 - p) * (1 - q)),
        ):
            key = OPERATIONS.index(a), OPERATIONS.index(b)
            probability[key] = probability.get(key, 0.0) + share / 25
    assert set(pairs) <= {pair for pair, share in probability.items() if share > 0}
    frequent = [pair for pair, share in probability.items() if share * 2500 >= 5]
    counts = [pairs.count(pair) for pair in frequent]
    expected = [probability[pair] * 2500 for pair in frequent]
    # The rare pairs together, so that both sides add up.
    counts.append(2500 - sum(counts))
    expected.append(max(2500 - sum(expected), 1e-9))
    if expected[-1] < 5:
        counts[-2:], expected[-2:] = [sum(counts[-2:])], [sum(expected[-2:])]
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("policy", ["released", "imagenet", "cifar10", "svhn"])
def test_tables_hold_25_pairs_of_known_operations(policy):
    table, _ = policies.TABLES[policy]
    assert len(table) == 25
    for name, probability, level in itertools.chain.from_iterable(table):
        assert name in OPERATIONS[:-1]
        assert round(10 * probability) == pytest.approx(10 * probability)
        assert 0 <= probability <= 1
        assert 0 <= level <= 10


def test_simclr_and_stacked_randaugment_run_their_parts_in_order(monkeypatch):
    calls = []
    parts = ["random_color_jitter", "randaugment", "random_grey", "random_warp", "random_blur"]
    for part in parts:
        monkeypatch.setattr(
            recipes, part, lambda images, *, part=part, **_: calls.append(part) or images
        )
    augment.stacked_randaugment(image_of(2, 2), seed=0)
    assert calls == parts
    calls.clear()
    augment.simclr(image_of(2, 2), seed=0)
    assert calls == [part for part in parts if part != "randaugment"]


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        (augment.simclr, {"strength": -0.1}, r"strength must be in \[0, 2.5\], got -0.1"),
        (augment.simclr, {"strength": 3}, r"strength must be in \[0, 2.5\], got 3"),
        (
            augment.simclr,
            {"jitter": "torch"},
            r"jitter must be one of .*'torchvision'.*got 'torch'",
        ),
        (augment.simclr, {"blur_probability": 2}, r"blur_probability must be in \[0, 1\], got 2"),
        (augment.simclr, {"warp_probability": -1}, r"warp_probability must be in \[0, 1\], got -1"),
        (augment.autoaugment, {"policy": "v0"}, r"policy must be one of .*'svhn'.*got 'v0'"),
        (augment.randaugment, {"layers": -1}, r"layers must be >= 0, got -1"),
        (augment.randaugment, {"magnitude": 11}, r"magnitude must be in \[0, 10\], got 11"),
        (augment.stacked_randaugment, {"jitter": ""}, r"jitter must be one of .*got ''"),
        (augment.stacked_randaugment, {"magnitude": -1}, r"magnitude must be in .*got -1"),
    ],
)
def test_bad_options_are_named_with_their_value(recipe, options, message):
    with pytest.raises(ValueError, match=message):
        recipe(image_of(2, 2), seed=0, **options)
