"""Random crops: distribution of windows, resampling, and partly decoded JPEGs."""

import io
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import stats

from supcon_tf.data import crops, resampling, views
from supcon_tf.data.decode import decode
from supcon_tf.errors import UserError

DEFAULTS = {
    "area_range": (0.08, 1.0),
    "aspect_range": (3 / 4, 4 / 3),
    "flip_probability": 0.5,
    "num_tries": 10,
}


def axis_weights(length, size):
    """[size, length]: the share of each source pixel in each result pixel."""
    table = np.zeros((size, length))
    for place in range(size):
        centre = (place + 0.5) * length / size - 0.5
        for pixel in range(length):
            table[place, pixel] = max(0.0, 1.0 - abs(centre - pixel))
        table[place] /= table[place].sum()
    return table


def bilinear(image, height, width):
    down, across = axis_weights(image.shape[0], height), axis_weights(image.shape[1], width)
    return np.einsum("ih,hwc,jw->ijc", down, image, across)


def loop_resample(image, window, size):
    """Bilinear in float64, after halving where both sides shrink to less than half."""
    top, left, height, width, mirrored = window
    scale = 255.0 if image.dtype == np.uint8 else 1.0
    part = image[top : top + height, left : left + width].astype(np.float64) / scale
    sides = part.shape[:2]
    while min(height, width) > 2 * size and max(sides) > 2 * size:
        sides = [math.ceil(side / 2) if side > 2 * size else side for side in sides]
        part = bilinear(part, *sides)
    result = bilinear(part, size, size)
    return result[:, ::-1] if mirrored else result


def random_windows(shape, count):
    rng = np.random.default_rng(5)
    height, width = shape
    heights, widths = (rng.integers(1, side + 1, count) for side in shape)
    heights[0], widths[0] = height, width
    tops, lefts = rng.integers(0, height - heights + 1), rng.integers(0, width - widths + 1)
    values = (tops, lefts, heights, widths)
    mirrored = np.arange(count) % 2 == 1
    return resampling.Windows(*(tf.constant(v, tf.int32) for v in values), tf.constant(mirrored))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((13, 9), 16), ((40, 57), 8), ((33, 31), 24), ((70, 20), 9), ((32, 32), 32), ((1, 1), 3)],
)
def test_resampling_equals_the_float64_loop(shape, size, dtype):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, *shape, 3)).astype(np.uint8)
    if dtype == np.float32:
        images = images.astype(np.float32) / np.float32(255.0)
    windows = random_windows(shape, 18)
    grouped = resampling.Windows(*(tf.reshape(values, [6, 3]) for values in windows))
    batch = resampling.resample_batch(tf.constant(images), grouped, size)
    assert batch.shape == (6, 3, size, size, 3)
    for number, image in enumerate(images):
        mine = resampling.Windows(*(values[number] for values in grouped))
        # Positions up to 70 pixels have a float32 rounding of 4e-6.
        alone = resampling.resample_each(tf.constant(image), mine, size)
        np.testing.assert_allclose(batch[number], alone, atol=4e-6)
        for view in range(3):
            window = [int(values[view]) for values in mine]
            expected = loop_resample(image, window, size)
            np.testing.assert_allclose(alone[view], expected, atol=4e-6)
            np.testing.assert_allclose(batch[number, view], expected, atol=4e-6)


def test_cached_weights_equal_computed_ones_in_any_graph():
    images = np.random.default_rng(0).integers(0, 256, (4, 11, 11, 3)).astype(np.uint8)
    windows = resampling.Windows(*(v[:, None] for v in random_windows((11, 11), 4)))
    resampling._weights_of_all_spans.cache_clear()
    with tf.Graph().as_default():
        alone = resampling.Windows(*(tf.constant(v.numpy()) for v in windows))
        resampling.resample_batch(tf.constant(images), alone, 11)
    assert resampling._weights_of_all_spans.cache_info().currsize == 0
    images_ = tf.constant(images)
    traced = tf.function(lambda w: resampling.resample_batch(images_, w, 11), autograph=False)
    cached = traced(windows)
    assert resampling._weights_of_all_spans.cache_info().currsize == 2  # One down, one across.
    np.testing.assert_array_equal(resampling.resample_batch(images_, windows, 11), cached)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "_MAX_CACHED", 0)
        computed = resampling.resample_batch(images_, windows, 11)
    np.testing.assert_allclose(cached, computed, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("shape", "size"), [((32, 32), 32), ((40, 61), 16), ((90, 70), 12)])
def test_batch_equals_single_images_and_seeds(shape, size):
    images = np.random.default_rng(0).integers(0, 256, (5, *shape, 3)).astype(np.uint8)
    seeds = np.arange(40, dtype=np.int64).reshape(5, 8)
    batch = crops.random_resized_crop(images, seed=seeds, size_px=size)
    assert batch.shape == (5, 8, size, size, 3)
    for image, image_seeds, expected in zip(images, seeds, batch, strict=True):
        many = crops.random_resized_crop(image, seed=image_seeds, size_px=size)
        np.testing.assert_allclose(many, expected, atol=2e-6)
        for view in (0, 7):
            one = crops.random_resized_crop(image, seed=int(image_seeds[view]), size_px=size)
            assert one.shape == (size, size, 3)
            np.testing.assert_allclose(one, expected[view], atol=2e-6)
    one_each = crops.random_resized_crop(images, seed=seeds[:, 0], size_px=size)
    np.testing.assert_allclose(one_each, batch[:, 0], atol=2e-6)


def test_white_stays_white():
    images = tf.fill([20, 37, 41, 3], tf.constant(255, tf.uint8))
    seeds = tf.range(20, dtype=tf.int64)
    for size in (8, 24, 60):
        batch = crops.random_resized_crop(images, seed=seeds, size_px=size).numpy()
        np.testing.assert_allclose(batch, 1.0, atol=2e-6)
        assert batch.max() <= 1.0 + 1e-6


def sample_windows(size, count, **options):
    seeds = tf.range(count, dtype=tf.int64)
    windows = crops.draw_windows(tf.constant(size), seeds, **{**DEFAULTS, **options})
    return resampling.Windows(*(values.numpy() for values in windows))


def test_area_log_aspect_and_position_are_uniform():
    # Half the area at aspect 4 / 3 spans 0.82 of the side, so every try fits.
    side, count = 100_000, 4000
    windows = sample_windows((side, side), count, area_range=(0.08, 0.5))
    areas = windows.height.astype(float) * windows.width / side**2
    log_aspects = np.log(windows.width / windows.height)
    span = math.log(4 / 3)
    assert stats.kstest(areas, stats.uniform(0.08, 0.42).cdf).pvalue > 1e-3
    assert stats.kstest(log_aspects, stats.uniform(-span, 2 * span).cdf).pvalue > 1e-3
    assert stats.kstest(windows.top / (side - windows.height), "uniform").pvalue > 1e-3
    assert stats.kstest(windows.left / (side - windows.width), "uniform").pvalue > 1e-3
    table = np.stack([areas, log_aspects, windows.top / (side - windows.height)])
    assert np.abs(np.corrcoef(table) - np.eye(3)).max() < 0.08


def test_windows_that_do_not_fit_are_sampled_again():
    height, width, count = 300, 500, 4000
    windows = sample_windows((height, width), count)
    assert np.all(windows.top + windows.height <= height)
    assert np.all(windows.left + windows.width <= width)
    assert min(windows.top.min(), windows.left.min()) == 0
    # The same distribution by rejection in a loop.
    rng = np.random.default_rng(0)
    areas = []
    while len(areas) < count:
        area, log_aspect = rng.uniform(0.08, 1.0), rng.uniform(-math.log(4 / 3), math.log(4 / 3))
        high = math.sqrt(area * height * width / math.exp(log_aspect))
        if round(high) <= height and round(high * math.exp(log_aspect)) <= width:
            areas.append(area)
    ours = windows.height.astype(float) * windows.width / (height * width)
    assert stats.ks_2samp(ours, areas).pvalue > 1e-3


def test_every_corner_of_a_small_image_is_equally_likely():
    # 2 x 2 parts of a 4 x 5 image.
    windows = sample_windows((4, 5), 6000, area_range=(0.2, 0.2), aspect_range=(1.0, 1.0))
    assert set(windows.height) == set(windows.width) == {2}
    counts = np.bincount(4 * windows.top + windows.left, minlength=12)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_flips_have_their_probability(probability):
    mirrored = sample_windows((20, 20), 4000, flip_probability=probability).mirrored
    assert stats.binomtest(int(mirrored.sum()), 4000, probability).pvalue > 1e-3


def test_fallback_is_the_largest_centre_square():
    for size, expected in (((10, 1001), (0, 495, 10, 10)), ((1000, 30), (485, 0, 30, 30))):
        windows = sample_windows(size, 200, area_range=(0.9, 1.0))
        for values, value in zip(windows[:4], expected, strict=True):
            assert set(values.tolist()) == {value}
        assert 60 < windows.mirrored.sum() < 140
    # 42 % of the tries fit: with one try the other windows are the centre square.
    options = {"area_range": (0.75, 0.75), "aspect_range": (0.5, 2.0), "flip_probability": 0.0}
    one, ten = (sample_windows((100, 100), 1000, num_tries=tries, **options) for tries in (1, 10))
    fit = 2 * abs(math.log(0.75)) / (2 * math.log(2))
    fallen = np.mean((one.height == 100) & (one.width == 100))
    # Binomial(1000, 0.585): standard deviation of the share 0.0156.
    assert abs(fallen - (1 - fit)) < 0.07
    assert np.mean((ten.height == 100) & (ten.width == 100)) < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"area_range": (20, 100)}, r"area_range must be .* <= 1, such as .*, got \(20, 100\)"),
        ({"area_range": (0.0, 1.0)}, r"area_range must be .* got \(0.0, 1.0\)"),
        ({"area_range": (0.5, 0.2)}, r"area_range must be .* got \(0.5, 0.2\)"),
        ({"aspect_range": (0, 1)}, r"aspect_range must be .* got \(0, 1\)"),
        ({"area_range": (0.5,)}, r"area_range must be \(smallest, largest\) .* got \(0.5,\)"),
        ({"area_range": 0.5}, r"area_range must be .* got 0.5"),
        ({"area_range": "ab"}, r"area_range must be .* got 'ab'"),
        ({"aspect_range": (1, math.inf)}, r"aspect_range must be .* got \(1, inf\)"),
        ({"aspect_range": (2, 1)}, r"aspect_range must be .* got \(2, 1\)"),
        ({"flip_probability": 50}, r"flip_probability must be a number >= 0 and <= 1, got 50"),
        ({"num_tries": 0}, "num_tries must be an integer >= 1, got 0"),
        ({"size_px": 0}, "size_px must be an integer >= 1, got 0"),
    ],
)
def test_wrong_options_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        crops.random_resized_crop(
            tf.zeros([4, 4, 3], tf.uint8), seed=0, **{"size_px": 2, **options}
        )


def jpeg_of(image, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **options)
    return tf.constant(file.getvalue())


def waves(height, width):
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [np.sin(rows / 19), np.cos(columns / 23), np.sin((rows + columns) / 31)]
    return ((np.stack(planes, -1) + 1) * 127.5).astype(np.uint8)


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 95, "subsampling": 0},
        {"quality": 75, "subsampling": 2},
        {"quality": 75, "subsampling": 1},
        {"quality": 50, "progressive": True},
    ],
    ids=["444", "420", "422", "progressive"],
)
@pytest.mark.parametrize("shape", [(61, 83), (64, 48), (17, 200)])
def test_partly_decoded_jpeg_gives_the_same_bits(shape, options):
    noise = np.random.default_rng(0).integers(-40, 40, (*shape, 3))
    encoded = jpeg_of(np.clip(waves(*shape) + noise, 0, 255).astype(np.uint8), **options)
    whole = decode(encoded)
    for count in (1, 2, 6):
        seeds = tf.range(count, dtype=tf.int64) + 10 * count
        # No crop shrinks to less than half along both sides, so nothing is halved.
        partial = crops.random_resized_crop(encoded, seed=seeds, size_px=64)
        expected = crops.random_resized_crop(whole, seed=seeds, size_px=64)
        np.testing.assert_array_equal(partial, expected)


def test_a_grey_jpeg_is_cropped_as_rgb():
    encoded = jpeg_of(waves(50, 60)[..., 0])
    crop = crops.random_resized_crop(encoded, seed=3, size_px=32)
    assert crop.shape == (32, 32, 3)
    np.testing.assert_array_equal(crop[..., 0], crop[..., 2])
    np.testing.assert_array_equal(
        crop, crops.random_resized_crop(decode(encoded), seed=3, size_px=32)
    )


@pytest.mark.parametrize("size", [14, 24, 50, 100])
def test_reduced_jpeg_is_close_to_the_full_decoding(size):
    # Windows are at least 306 pixels high and wide: read at 1/8, 1/8, 1/4 and 1/2.
    encoded = jpeg_of(waves(400, 430), quality=95)
    reduction = {14: 8, 24: 8, 50: 4, 100: 2}[size]
    seeds = tf.range(8, dtype=tf.int64)
    options = {"size_px": size, "area_range": (0.6, 0.8), "aspect_range": (0.9, 1.1)}
    reduced = crops.random_resized_crop(encoded, seed=seeds, **options).numpy()
    full = crops.random_resized_crop(decode(encoded), seed=seeds, **options).numpy()
    assert not np.array_equal(reduced, full)
    # Either end of a window moves by less than a reduced pixel, and each of its pixels by less than
    # two over both directions; the waves rise by at most 1/38 per pixel.
    assert np.abs(reduced - full).max() < 2 * reduction / 38 + 0.02
    assert np.abs(reduced - full).mean() < reduction / 38 / 2 + 0.005


@pytest.mark.parametrize("size", [24, 48, 96])
def test_reduced_jpeg_averages_noise_like_the_full_decoding(size):
    noise = np.random.default_rng(0).integers(0, 256, (384, 384, 1)).astype(np.uint8)
    encoded = jpeg_of(np.repeat(noise, 3, axis=2), quality=95)
    options = {"size_px": size, "area_range": (1.0, 1.0), "aspect_range": (1.0, 1.0)}
    reduced = crops.random_resized_crop(encoded, seed=0, **options)
    full = crops.random_resized_crop(decode(encoded), seed=0, **options)
    # Averaging in another way than by blocks of 2, 4 and 8 differs by 0.01 to 0.04.
    assert np.sqrt(np.mean((reduced - full) ** 2)) < 0.006


@pytest.mark.parametrize(
    ("shape", "size"),
    [((90, 70), (8, 9)), ((41, 300), (10, 10)), ((300, 41), (10, 10)), ((41, 300), (21, 20))],
)
def test_resize_halves_first_along_each_side(shape, size):
    images = np.random.default_rng(0).random((2, *shape, 3)).astype(np.float32)
    expected = images.astype(np.float64)
    shrinks = shape[0] > 2 * size[0] and shape[1] > 2 * size[1]
    while shrinks and any(expected.shape[1 + axis] > 2 * size[axis] for axis in (0, 1)):
        sides = [
            math.ceil(side / 2) if side > 2 * target else side
            for side, target in zip(expected.shape[1:3], size, strict=True)
        ]
        expected = np.stack([bilinear(image, *sides) for image in expected])
    expected = np.stack([bilinear(image, *size) for image in expected])
    # Positions up to 300 pixels have a float32 rounding of 1.5e-5, up to 90 pixels of 4e-6.
    np.testing.assert_allclose(resampling.resize(tf.constant(images), size), expected, atol=1e-5)
    alone = resampling.resize(tf.constant(images[0]), size)
    np.testing.assert_allclose(alone, expected[0], atol=1e-5)


def test_reduced_windows_are_at_the_same_position_on_average():
    # A ramp's mean gives the position. Windows are 219 pixels and more, read at a quarter or an eighth.
    columns = np.linspace(0, 255, 512)
    ramp = np.repeat(np.tile(columns, [400, 1])[..., None], 3, axis=2).astype(np.uint8)
    encoded = jpeg_of(ramp, quality=95)
    seeds = tf.range(60, dtype=tf.int64)
    options = {"size_px": 32, "area_range": (0.4, 0.6)}
    reduced = crops.random_resized_crop(encoded, seed=seeds, **options).numpy()
    full = crops.random_resized_crop(decode(encoded), seed=seeds, **options).numpy()
    moved = (reduced - full).mean(axis=(1, 2, 3)) * 512
    # Both ends move to the nearest reduced pixel, at most 4 pixels away and on average half a pixel
    # to the right, because halves round up. Rounding to uint8 adds up to one pixel.
    assert np.abs(moved).max() < 6
    assert abs(moved.mean()) < 2


def test_jpeg_with_exif_orientation_is_cropped_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = jpeg_of(waves(60, 90), exif=exif)
    upright = decode(encoded)
    assert upright.shape == (90, 60, 3)
    seeds = tf.range(3, dtype=tf.int64)
    np.testing.assert_array_equal(
        crops.random_resized_crop(encoded, seed=seeds, size_px=24),
        crops.random_resized_crop(upright, seed=seeds, size_px=24),
    )


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_images_of_other_than_three_channels_are_rejected(channels):
    images = tf.zeros([4, 16, 20, channels], tf.uint8)
    message = f"need images of 3 channels, got {channels}"
    for image, seed in ((images, tf.range(8, dtype=tf.int64)[:, None]), (images[0], 1)):
        with pytest.raises(UserError, match=message):
            views.random_resized_crop(image, seed=seed, size_px=8)
        with pytest.raises(UserError, match=message):
            views.eval_crop(image, size_px=8)


@pytest.mark.parametrize(
    ("image", "seed", "message"),
    [
        ([9, 9], [], r"must be encoded \[\], or .* got shape \(9, 9\)"),
        ([2, 2, 9, 9, 3], [2], r"got shape \(2, 2, 9, 9, 3\)"),
        ([9, 9, 3], [2, 2], r"seed must be .*, got \(2, 2\) for images of shape \(9, 9, 3\)"),
        ([5, 9, 9, 3], [], r"seed must be .*, got \(\) for"),
        ([5, 9, 9, 3], [3], r"seed must be .*, got \(3,\) for"),
    ],
)
def test_images_and_seeds_of_other_shapes_are_rejected(image, seed, message):
    with pytest.raises(UserError, match=message):
        crops.random_resized_crop(
            tf.zeros(image, tf.uint8), seed=tf.zeros(seed, tf.int64), size_px=4
        )
