"""Crops, scale and preprocessing: definitions, statistics, and the same seed, the same image."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import views


def ramp(height, width):
    """Red tells the column and green the row, both in [0, 1]."""
    rows, columns = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    return tf.constant(np.stack([columns, rows, np.zeros_like(rows)], -1), tf.float32)


def seeds(count):
    return tf.range(700, 700 + count, dtype=tf.int64)


def test_crops_have_the_area_and_aspect_that_were_asked_for():
    image = ramp(120, 160)
    areas, aspects, mirrored = [], [], 0
    options = {"size_px": 32, "area_range": (0.2, 0.6)}
    for view in views.random_resized_crop(image, seed=seeds(300), **options).numpy():
        # A ramp's slope over the crop tells how wide it was; resizing keeps the span but for
        # half a pixel of the result at each end.
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


def test_a_crop_that_cannot_fit_falls_back_to_the_centre_square():
    image = ramp(10, 1000)
    view = views.random_resized_crop(
        image, seed=0, size_px=10, area_range=(0.9, 1.0), flip_probability=0.0
    )
    np.testing.assert_allclose(view, image[:, 495:505], atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2), (700, 500)])
def test_every_size_of_image_is_cropped_to_the_size_asked_for(shape):
    image = tf.cast(255 * ramp(*shape), tf.uint8)
    for seed in seeds(5):
        view = views.random_resized_crop(image, seed=seed, size_px=24)
        assert view.shape == (24, 24, 3)
        assert view.dtype == tf.float32
        assert 0 <= tf.reduce_min(view) <= tf.reduce_max(view) <= 1
    for method in ("resize_then_crop", "crop_then_resize", "crop_then_distort", "none"):
        assert views.eval_crop(image, size_px=24, method=method).shape == (24, 24, 3)


def test_flips_happen_as_often_as_asked_for():
    image = ramp(32, 32)
    for probability, expected in ((0.0, 0), (1.0, 20)):
        crops = views.random_resized_crop(
            image, seed=seeds(20), size_px=32, flip_probability=probability
        ).numpy()
        assert (crops[:, 16, 0, 0] > crops[:, 16, -1, 0]).sum() == expected


def test_evaluation_crops_show_the_part_that_their_name_says():
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


def test_the_evaluation_crop_of_a_batch_is_that_of_each_image():
    images = tf.random.stateless_uniform([3, 40, 50, 3], [0, 1])
    for method in ("resize_then_crop", "crop_then_resize", "crop_then_distort", "none"):
        batch = views.eval_crop(images, size_px=32, method=method)
        for image, view in zip(images, batch, strict=True):
            np.testing.assert_allclose(
                views.eval_crop(image, size_px=32, method=method), view, atol=1e-6
            )


def test_an_unknown_evaluation_crop_is_named():
    with pytest.raises(ValueError, match=r"method must be one of .* got 'center'"):
        views.eval_crop(ramp(8, 8), size_px=8, method="center")


def test_normalization_stands_on_the_scale_of_minus_one_to_one():
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
def test_preprocessing_puts_the_augmentation_between_crop_and_scale(shape):
    preprocessing = views.Preprocessing(image_px=16)
    axes = shape[:-3]

    def white(image, *, seed):
        assert image.shape == (*axes, 5, 16, 16, 3)
        assert seed.shape == (*axes, 5)
        return tf.ones_like(image)

    of_views = tf.reshape(seeds(5 * int(np.prod(axes))), [*axes, 5])
    image = tf.broadcast_to(ramp(20, 20), shape)
    view = preprocessing.training_views(image, white, seed=of_views)
    np.testing.assert_array_equal(view, np.ones((*axes, 5, 16, 16, 3)))
    with pytest.raises(ValueError, match="image_px must be >= 1, got 0"):
        views.Preprocessing(image_px=0)


def test_training_views_are_crops_that_are_then_distorted():
    normalization = ((-0.1, 0.0, 0.1), (0.4, 0.5, 0.6))
    preprocessing = views.Preprocessing(image_px=16, normalization=normalization)
    of_views = tf.reshape(seeds(6), [2, 3])
    images = tf.stack([ramp(20, 24), 1.0 - ramp(20, 24)])
    crops = preprocessing.training_crops(images, seed=of_views)
    assert crops.shape == (2, 3, 16, 16, 3)
    assert 0.0 <= tf.reduce_min(crops) < tf.reduce_max(crops) <= 1.0 + 1e-6
    expected = preprocessing.training_views(images, views.simclr, seed=of_views)
    distorted = preprocessing.distorted(crops, views.simclr, seed=of_views)
    np.testing.assert_array_equal(distorted, expected)
    # Scale alone is left where nothing is distorted.
    plain = preprocessing.distorted(crops, views.identity, seed=of_views)
    np.testing.assert_array_equal(plain, views.scale(crops, normalization=normalization))


def test_crop_and_augmentation_have_seeds_of_their_own():
    taken = []

    def crop(image, *, seed, size_px):
        taken.append(seed)
        return tf.broadcast_to(image, [*seed.shape, size_px, size_px, 3])

    def augmentation(image, *, seed):
        taken.append(seed)
        return image

    preprocessing = views.Preprocessing(image_px=4, crop=crop)
    preprocessing.training_views(tf.zeros([4, 4, 3]), augmentation, seed=seeds(3))
    of_crop, of_augmentation = (seed.numpy().tolist() for seed in taken)
    assert len({*of_crop, *of_augmentation, *seeds(3).numpy().tolist()}) == 9


def test_the_evaluation_view_of_a_batch_is_that_of_each_image():
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
