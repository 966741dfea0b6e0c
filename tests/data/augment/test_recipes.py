"""The augmentations: reproducible per seed, ranges and shapes, frequency of each step."""

import collections
import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from scipy import stats

from supcon_tf.data import augment
from supcon_tf.data.augment import operations, policies, recipes
from supcon_tf.data.augment.operations import OPERATIONS
from supcon_tf.errors import UserError

RECIPES = {
    "identity": augment.identity,
    "simclr": functools.partial(augment.simclr, warp_probability=0.5),
    "simclr_torchvision": functools.partial(augment.simclr, strength=0.5, jitter="torchvision"),
    "simclr_tones": functools.partial(
        augment.simclr, grey_probability=0.0, solarize_probability=0.5, equalize_probability=0.5
    ),
    "autoaugment": augment.autoaugment,
    "randaugment": augment.randaugment,
    "stacked_randaugment": functools.partial(augment.stacked_randaugment, warp_probability=0.5),
}
RANDOM_RECIPES = {name: recipe for name, recipe in RECIPES.items() if name != "identity"}


def noise(height, width):
    return tf.constant(np.random.default_rng(0).random((height, width, 3)), tf.float32)


def map_seeds(recipe, image, count, parallel_calls=2):
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
    return map_seeds(compiled(name), noise(24, 31), 60, parallel_calls)


@pytest.mark.parametrize("name", RECIPES)
def test_same_seed_gives_the_same_bits_eagerly_and_in_a_parallel_map(name):
    np.testing.assert_array_equal(sixty_images(name, parallel_calls=4), sixty_images(name))
    for number in range(5):
        result = RECIPES[name](noise(24, 31), seed=number)
        np.testing.assert_array_equal(result, sixty_images(name)[number])


@pytest.mark.parametrize("name", RANDOM_RECIPES)
def test_images_stay_in_range_and_differ_between_seeds(name):
    images = sixty_images(name)
    assert images.shape == (60, 24, 31, 3)
    assert images.dtype == np.float32
    assert images.min() >= 0.0
    assert images.max() <= 1.0
    # Several of AutoAugment's outcomes are equal on noise.
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
def test_batch_equals_single_images(name):
    images = np.random.default_rng(1).random((60, 24, 31, 3)).astype(np.float32)
    images[:30] = noise(24, 31)
    batch = compiled_for_batches(name)(images, tf.range(60, dtype=tf.int64)).numpy()
    # A warp multiplies the rounding error of positions by the contrast of the noise.
    atol = 1e-5 if name in ("simclr", "stacked_randaugment") else 2e-6
    np.testing.assert_allclose(batch[:30], sixty_images(name)[:30], atol=atol)
    for number in range(30, 60):
        alone = compiled(name)(tf.constant(images[number]), tf.constant(number, tf.int64))
        np.testing.assert_allclose(batch[number], alone, atol=atol)


@pytest.mark.parametrize("name", RECIPES)
def test_any_number_of_leading_axes_is_accepted(name):
    images = tf.constant(np.random.default_rng(1).random((2, 3, 8, 9, 3)), tf.float32)
    seeds = tf.constant([[5, 1, 4], [-2, 2**40, 0]], tf.int64)
    result = RECIPES[name](images, seed=seeds)
    assert result.shape == images.shape
    flat = RECIPES[name](tf.reshape(images, [6, 8, 9, 3]), seed=tf.reshape(seeds, [6]))
    np.testing.assert_array_equal(tf.reshape(flat, images.shape), result)


def test_simclr_with_static_shapes_compiles_under_xla():
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


@pytest.mark.parametrize(
    "options",
    [
        {"exact": True},
        {"exact": False, "warp_probability": 0.1},
        {"exact": False, "solarize_probability": 0.1},
        {"exact": False, "equalize_probability": 0.1},
    ],
)
def test_static_shapes_with_exact_warp_or_tones_is_rejected(options):
    with pytest.raises(UserError, match="static_shapes needs exact = False and warp_probability"):
        augment.simclr(noise(2, 2), seed=0, static_shapes=True, **options)


@pytest.mark.parametrize(
    "name",
    [
        # The operations have a test with one pixel, and tracing all of them takes seconds.
        pytest.param(name, marks=pytest.mark.slow)
        if name in ("simclr_torchvision", "autoaugment", "stacked_randaugment")
        else name
        for name in RECIPES
    ],
)
def test_dynamic_sizes_down_to_one_pixel_are_accepted(name):
    function = tf.function(
        lambda image, seed: RECIPES[name](image, seed=seed),
        input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec([], tf.int64)],
        autograph=False,
    )
    for size in ((1, 1), (2, 5), (24, 24)):
        for number in range(10):
            result = function(noise(*size), tf.constant(number, tf.int64)).numpy()
            assert result.shape == (*size, 3)
            assert result.min() >= 0.0
            assert result.max() <= 1.0


def test_identity_returns_the_image():
    image = noise(3, 4)
    assert augment.identity(image, seed=0) is image


def test_simclr_at_zero_strength_without_blur_only_makes_grey():
    image = noise(8, 8)
    images, seeds = tf.tile(image[None], [400, 1, 1, 1]), tf.range(400, dtype=tf.int64)
    result = augment.simclr(images, seed=seeds, strength=0, blur_probability=0).numpy()
    unchanged = np.all(result == image.numpy(), axis=(1, 2, 3))
    assert np.all(result[~unchanged][..., :1] == result[~unchanged])
    # Binomial(400, 0.8): standard deviation of the share 0.02.
    assert abs(unchanged.mean() - 0.8) < 0.08


def test_simclr_solarizes_and_equalizes_as_pillow_does_with_their_probabilities():
    pixels = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    solarized = {ImageOps.solarize(picture, at).tobytes(): at for at in range(256)}
    solarized.pop(picture.tobytes(), None)
    equalized = {
        ImageOps.equalize(ImageOps.solarize(picture, at)).tobytes(): at for at in range(257)
    }
    images = tf.tile(tf.constant(pixels / 255.0, tf.float32)[None], [500, 1, 1, 1])
    results = augment.simclr(
        images, seed=tf.range(500, dtype=tf.int64), strength=0, blur_probability=0,
        grey_probability=0, solarize_probability=0.2, equalize_probability=0.4,
    )  # fmt: skip
    counts, thresholds = collections.Counter(), []
    for result in np.rint(results.numpy() * 255).astype(np.uint8):
        rows = result.tobytes()
        if rows == picture.tobytes():
            counts["none"] += 1
        elif rows in solarized:
            counts["solarized"] += 1
            thresholds.append(solarized[rows])
        else:
            counts["equalized" if equalized[rows] == 256 else "both"] += 1
    names = ("none", "solarized", "equalized", "both")
    observed, expected = [counts[name] for name in names], [240, 60, 160, 40]
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    assert stats.kstest(np.array(thresholds) / 256, "uniform").pvalue > 1e-3


def test_simclr_can_leave_out_grey():
    image = noise(8, 8)
    images, seeds = tf.tile(image[None], [50, 1, 1, 1]), tf.range(50, dtype=tf.int64)
    for exact in (True, False):
        result = augment.simclr(
            images, seed=seeds, strength=0, blur_probability=0, grey_probability=0, exact=exact
        )
        np.testing.assert_allclose(result, images, atol=1e-6)


def test_randaugment_without_layers_rounds_to_uint8():
    image = noise(8, 8)
    result = augment.randaugment(image, seed=0, layers=0)
    rounded = np.floor(image * 255 + np.float32(0.5)) / np.float32(255)
    np.testing.assert_allclose(result, rounded, rtol=1e-6)


def record_operations(monkeypatch):
    """Makes operations write their index into a pixel, the last operation in the first channel."""

    @tf.autograph.experimental.do_not_convert
    def write(image, *, operation, parameter, seed):
        del parameter, seed
        drawn = tf.reshape(tf.cast(operation, tf.uint8), [1, 1, 1])
        return tf.concat([drawn, image[..., :2]], axis=-1)

    monkeypatch.setattr(operations, "apply", write)


def sample_pairs(recipe, count):
    compiled = tf.function(recipe, autograph=False)
    images = compiled(tf.zeros([count, 1, 1, 3]), seed=tf.range(count, dtype=tf.int64))
    pixels = np.rint(images.numpy() * 255).astype(int)
    return [(first, second) for second, first, _ in pixels.reshape(-1, 3)]


def test_randaugment_pairs_are_uniform_over_17_outcomes(monkeypatch):
    record_operations(monkeypatch)
    pairs = sample_pairs(augment.randaugment, 2890)
    counts = [pairs.count(pair) for pair in itertools.product(range(17), repeat=2)]
    assert sum(counts) == 2890
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("policy", ["released", "imagenet", "cifar10", "svhn"])
def test_autoaugment_steps_have_the_probabilities_of_the_table(monkeypatch, policy):
    record_operations(monkeypatch)
    pairs = sample_pairs(functools.partial(augment.autoaugment, policy=policy), 2500)
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
    # All rare pairs count as one outcome.
    counts.append(2500 - sum(counts))
    expected.append(max(2500 - sum(expected), 1e-9))
    if expected[-1] < 5:
        counts[-2:], expected[-2:] = [sum(counts[-2:])], [sum(expected[-2:])]
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("policy", ["released", "imagenet", "cifar10", "svhn"])
def test_policies_have_25_pairs_of_known_operations(policy):
    table, _ = policies.TABLES[policy]
    assert len(table) == 25
    for name, probability, level in itertools.chain.from_iterable(table):
        assert name in OPERATIONS[:-1]
        assert round(10 * probability) == pytest.approx(10 * probability)
        assert 0 <= probability <= 1
        assert 0 <= level <= 10


def test_simclr_and_stacked_randaugment_apply_steps_in_order(monkeypatch):
    calls = []
    parts = ["random_color_jitter", "randaugment", "random_grey", "random_warp", "random_blur"]
    for part in parts:
        monkeypatch.setattr(
            recipes, part, lambda images, *, part=part, **_: calls.append(part) or images
        )
    augment.stacked_randaugment(noise(2, 2), seed=0)
    assert calls == parts
    calls.clear()
    augment.simclr(noise(2, 2), seed=0)
    assert calls == [part for part in parts if part != "randaugment"]


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        (
            augment.simclr,
            {"strength": -0.1},
            r"strength must be a number >= 0 and <= 2.5, got -0.1",
        ),
        (augment.simclr, {"strength": "1"}, r"strength must be a number >= 0 and <= 2.5, got '1'"),
        (
            augment.simclr,
            {"strength": np.nan},
            r"strength must be a number >= 0 and <= 2.5, got nan",
        ),
        (augment.simclr, {"strength": 3}, r"strength must be a number >= 0 and <= 2.5, got 3"),
        (
            augment.simclr,
            {"jitter": "torch"},
            r"jitter must be one of .*'torchvision'.*got 'torch'",
        ),
        (
            augment.simclr,
            {"blur_probability": 2},
            r"blur_probability must be a number >= 0 and <= 1, got 2",
        ),
        (
            augment.simclr,
            {"warp_probability": -1},
            r"warp_probability must be a number >= 0 and <= 1, got -1",
        ),
        (augment.simclr, {"grey_probability": 2}, "grey_probability must be a number .*got 2"),
        (augment.simclr, {"solarize_probability": -1}, "solarize_probability must .*got -1"),
        (augment.simclr, {"equalize_probability": "1"}, "equalize_probability must .*got '1'"),
        (augment.autoaugment, {"policy": "v0"}, r"policy must be one of .*'svhn'.*got 'v0'"),
        (augment.randaugment, {"layers": -1}, r"layers must be an integer >= 0, got -1"),
        (augment.randaugment, {"layers": 1.5}, r"layers must be an integer >= 0, got 1.5"),
        (
            augment.randaugment,
            {"magnitude": "9"},
            r"magnitude must be a number >= 0 and <= 10, got '9'",
        ),
        (
            augment.randaugment,
            {"magnitude": 11},
            r"magnitude must be a number >= 0 and <= 10, got 11",
        ),
        (augment.stacked_randaugment, {"jitter": ""}, r"jitter must be one of .*got ''"),
        (augment.stacked_randaugment, {"magnitude": -1}, r"magnitude must be a number .*got -1"),
    ],
)
def test_wrong_options_are_rejected_with_name_and_value(recipe, options, message):
    with pytest.raises(UserError, match=message):
        recipe(noise(2, 2), seed=0, **options)


@pytest.mark.parametrize(
    ("image", "seed", "message"),
    [
        (np.zeros([3, 4, 4, 1], np.float32), [1, 2, 3], r"H, W, 3\].*got float32 \(3, 4, 4, 1\)"),
        (np.zeros([4, 4, 3], np.uint8), 1, r"float32 .*got uint8 \(4, 4, 3\)"),
        (np.zeros([4, 4], np.float32), 1, r"got float32 \(4, 4\)"),
        (
            np.zeros([3, 4, 4, 3], np.float32),
            1,
            r"one seed for each image .*got seeds of shape \(\)",
        ),
        (np.zeros([2, 4, 4, 3], np.float32), [1, 2, 3], r"got seeds of shape \(3,\)"),
    ],
)
@pytest.mark.parametrize("name", RANDOM_RECIPES)
def test_wrong_images_and_seeds_are_rejected(name, image, seed, message):
    with pytest.raises(UserError, match=message):
        RECIPES[name](image, seed=seed)
