"""Crops, scale and preprocessing: definitions and statistics."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import views
from supcon_tf.errors import UserError


def ramp(height, width):
    """Red encodes the column and green the row, both in [0, 1]."""
    rows, columns = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    return tf.constant(np.stack([columns, rows, np.zeros_like(rows)], -1), tf.float32)


def seeds(count):
    return tf.range(700, 700 + count, dtype=tf.int64)


def test_crops_have_the_requested_area_and_aspect():
    image = ramp(120, 160)
    areas, aspects, mirrored = [], [], 0
    options = {"size_px": 32, "area_range": (0.2, 0.6)}
    for view in views.random_resized_crop(image, seed=seeds(300), **options).numpy():
        # The ramp's slope gives the crop's width. Resizing keeps the span except half a result
        # pixel at each end.
        width = (view[16, -1, 0] - view[16, 0, 0]) * 160 * 32 / 31
        height = (view[-1, 16, 1] - view[0, 16, 1]) * 120 * 32 / 31
        mirrored += width < 0
        areas.append(abs(width) * height / (120 * 160))
        aspects.append(abs(width) / height)
    assert 0.19 < min(areas) < 0.25
    assert 0.55 < max(areas) < 0.62
    np.testing.assert_allclose(np.mean(areas), 0.4, atol=0.03)
    assert 0.73 < min(aspects) < 0.8
    assert 1.25 < max(aspects) < 1.37
    np.testing.assert_allclose(np.mean(np.log(aspects)), 0, atol=0.05)
    # Binomial(300, 1/2): standard deviation 8.7.
    assert 150 - 35 < mirrored < 150 + 35


def test_crop_that_does_not_fit_falls_back_to_the_centre_square():
    image = ramp(10, 1000)
    view = views.random_resized_crop(
        image, seed=0, size_px=10, area_range=(0.9, 1.0), flip_probability=0.0
    )
    np.testing.assert_allclose(view, image[:, 495:505], atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2), (700, 500)])
def test_crops_have_the_requested_size(shape):
    image = tf.cast(255 * ramp(*shape), tf.uint8)
    for seed in seeds(5):
        view = views.random_resized_crop(image, seed=seed, size_px=24)
        assert view.shape == (24, 24, 3)
        assert view.dtype == tf.float32
        assert 0 <= tf.reduce_min(view) <= tf.reduce_max(view) <= 1
    for method in ("resize_then_crop", "crop_then_resize", "crop_then_distort", "none"):
        assert views.eval_crop(image, size_px=24, method=method).shape == (24, 24, 3)


def test_flip_probability_0_and_1():
    image = ramp(32, 32)
    for probability, expected in ((0.0, 0), (1.0, 20)):
        crops = views.random_resized_crop(
            image, seed=seeds(20), size_px=32, flip_probability=probability
        ).numpy()
        assert (crops[:, 16, 0, 0] > crops[:, 16, -1, 0]).sum() == expected


def test_evaluation_crops_show_the_right_window():
    image = ramp(256, 512)
    shown = {}
    for method in ("resize_then_crop", "crop_then_resize", "crop_then_distort", "none"):
        view = views.eval_crop(image, size_px=224, method=method).numpy()
        left, right = view[112, 0, 0], view[112, -1, 0]
        top, bottom = view[0, 112, 1], view[-1, 112, 1]
        shown[method] = [left, right, top, bottom]
    # Short side 256 = 224 + 32: the centre 224 of 512 x 256, 16 pixels off above and below.
    square = [144 / 512, 368 / 512, 16 / 256, 240 / 256]
    np.testing.assert_allclose(shown["resize_then_crop"], square, atol=0.004)
    np.testing.assert_allclose(shown["crop_then_resize"], square, atol=0.004)
    np.testing.assert_allclose(
        shown["crop_then_distort"], [1 / 16, 15 / 16, 1 / 16, 15 / 16], atol=0.006
    )
    np.testing.assert_allclose(shown["none"], [0, 1, 0, 1], atol=0.006)


def test_evaluation_crop_of_a_batch_equals_single_images():
    images = tf.random.stateless_uniform([3, 40, 50, 3], [0, 1])
    for method in ("resize_then_crop", "crop_then_resize", "crop_then_distort", "none"):
        batch = views.eval_crop(images, size_px=32, method=method)
        for image, view in zip(images, batch, strict=True):
            np.testing.assert_allclose(
                views.eval_crop(image, size_px=32, method=method), view, atol=1e-6
            )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "center"}, r"method must be one of .* got 'center'"),
        ({"size_px": 0}, "size_px must be an integer >= 1, got 0"),
        ({"padding_px": -1}, "padding_px must be an integer >= 0, got -1"),
        ({"padding_px": "32"}, "padding_px must be an integer >= 0, got '32'"),
    ],
)
def test_wrong_evaluation_crop_options_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        views.eval_crop(ramp(8, 8), **{"size_px": 8, **options})


def test_normalization_is_on_the_scale_minus_one_to_one():
    normalization = ((-0.1, 0.0, 0.1), (0.4, 0.5, 0.6))
    image = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    expected = (image * 2 - 1 - np.array(normalization[0])) / np.array(normalization[1])
    scaled = views.scale(tf.constant(image), normalization=normalization)
    np.testing.assert_allclose(scaled, expected, atol=1e-6)
    np.testing.assert_allclose(views.unscale(scaled, normalization=normalization), image, atol=1e-6)


def test_decode_reads_every_format_as_rgb():
    image = tf.cast(tf.random.stateless_uniform([6, 7, 3], [1, 2], 0, 256, tf.int32), tf.uint8)
    np.testing.assert_array_equal(views.decode(image), image)
    np.testing.assert_array_equal(views.decode(tf.io.encode_png(image)), image)
    assert views.decode(tf.io.encode_jpeg(image)).shape == (6, 7, 3)
    grey = views.decode(tf.io.encode_png(image[..., :1]))
    np.testing.assert_array_equal(grey, tf.image.grayscale_to_rgb(image[..., :1]))


@pytest.mark.parametrize("shape", [(20, 20, 3), (6, 20, 20, 3)])
def test_augmentation_is_between_crop_and_scale(shape):
    preprocessing = views.Preprocessing(image_px=16)
    axes = shape[:-3]

    def white(image, *, seed):
        assert image.shape == (*axes, 5, 16, 16, 3)
        assert seed.shape == (*axes, 5)
        return tf.ones_like(image)

    view_seeds = tf.reshape(seeds(5 * int(np.prod(axes))), [*axes, 5])
    image = tf.broadcast_to(ramp(20, 20), shape)
    view = preprocessing.training_views(image, white, seed=view_seeds)
    np.testing.assert_array_equal(view, np.ones((*axes, 5, 16, 16, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_px": 0}, "image_px must be an integer >= 1, got 0"),
        ({"image_px": "32"}, "image_px must be an integer >= 1, got '32'"),
        ({"image_px": 32.5}, "image_px must be an integer >= 1, got 32.5"),
        ({"crop": "random"}, "crop must be a function such as @views.random_resized_crop"),
        ({"eval_crop": None}, "eval_crop must be a function such as @views.eval_crop, got None"),
    ],
)
def test_wrong_preprocessing_options_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        views.Preprocessing(**{"image_px": 16, **options})


def test_augmentation_that_is_not_a_function_is_rejected():
    preprocessing = views.Preprocessing(image_px=16)
    with pytest.raises(UserError, match=r"augmentation must be a function .* got 'simclr'"):
        preprocessing.training_views(ramp(20, 20), "simclr", seed=seeds(2))


def test_training_views_are_augmented_training_crops():
    normalization = ((-0.1, 0.0, 0.1), (0.4, 0.5, 0.6))
    preprocessing = views.Preprocessing(image_px=16, normalization=normalization)
    view_seeds = tf.reshape(seeds(6), [2, 3])
    images = tf.stack([ramp(20, 24), 1.0 - ramp(20, 24)])
    crops = preprocessing.training_crops(images, seed=view_seeds)
    assert crops.shape == (2, 3, 16, 16, 3)
    assert 0.0 <= tf.reduce_min(crops) < tf.reduce_max(crops) <= 1.0 + 1e-6
    expected = preprocessing.training_views(images, views.simclr, seed=view_seeds)
    augmented = preprocessing.augment_and_scale(crops, views.simclr, seed=view_seeds)
    np.testing.assert_array_equal(augmented, expected)
    plain = preprocessing.augment_and_scale(crops, views.identity, seed=view_seeds)
    np.testing.assert_array_equal(plain, views.scale(crops, normalization=normalization))


def test_crop_and_augmentation_get_different_seeds():
    received = []

    def crop(image, *, seed, size_px):
        received.append(seed)
        return tf.broadcast_to(image, [*seed.shape, size_px, size_px, 3])

    def augmentation(image, *, seed):
        received.append(seed)
        return image

    preprocessing = views.Preprocessing(image_px=4, crop=crop)
    preprocessing.training_views(tf.zeros([4, 4, 3]), augmentation, seed=seeds(3))
    crop_seeds, augmentation_seeds = (seed.numpy().tolist() for seed in received)
    assert len({*crop_seeds, *augmentation_seeds, *seeds(3).numpy().tolist()}) == 9


def test_evaluation_view_of_a_batch_equals_single_images():
    preprocessing = views.Preprocessing(
        image_px=8, normalization=((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    )
    images = tf.cast(tf.random.stateless_uniform([3, 12, 10, 3], [0, 1], maxval=256), tf.uint8)
    batch = preprocessing.evaluation_view(images)
    assert batch.shape == (3, 8, 8, 3)
    for image, view in zip(images, batch, strict=True):
        np.testing.assert_allclose(preprocessing.evaluation_view(image), view, atol=2e-6)
        crop = views.eval_crop(image, size_px=8)
        expected = views.scale(crop, normalization=preprocessing.normalization)
        np.testing.assert_allclose(view, expected, atol=2e-6)


class Brightest:
    """An augmentation class with a variable, which a traced function may not create."""

    instances = 0

    def __init__(self):
        self.value = tf.Variable(1.0)
        Brightest.instances += 1

    def __call__(self, image, *, seed):
        return tf.ones_like(image) * self.value


def test_augmentation_class_is_instantiated_once_outside_of_traced_functions():
    preprocessing = views.Preprocessing(image_px=16)

    @tf.function(autograph=False)
    def training_views(seeds):
        return preprocessing.training_views(ramp(20, 20), Brightest, seed=seeds)

    for count in (2, 3):
        result = training_views(seeds(count))
        np.testing.assert_array_equal(result, np.ones([count, 16, 16, 3]))
    assert Brightest.instances == 1


def test_wrong_options_of_an_augmentation_class_are_one_line():
    class Failing:
        def __init__(self):
            raise ValueError("`magnitude` must be in [0, 1], got 5\nIn call to configurable")

        def __call__(self, image, *, seed):
            return image

    with pytest.raises(UserError, match=r"^augmentation: `magnitude` must be in \[0, 1\], got 5$"):
        views.Preprocessing(16).training_views(ramp(20, 20), Failing, seed=seeds(2))
