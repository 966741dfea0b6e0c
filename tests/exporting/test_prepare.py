"""NumPy makes the pixels that TensorFlow makes, and the options for it are found."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data.views import Preprocessing, eval_crop
from supcon_tf.exporting.description import describe_pixels
from supcon_tf.exporting.prepare import prepare

METHODS = ("resize_then_crop", "crop_then_resize", "crop_then_distort", "none")


@pytest.mark.parametrize("padding_px", [0, 5])
@pytest.mark.parametrize("method", METHODS)
def test_numpy_makes_the_same_pixels(method, padding_px):
    crop = functools.partial(eval_crop, method=method, padding_px=padding_px)
    normalization = ((0.1, 0.0, -0.1), (0.5, 0.4, 0.6))
    view = Preprocessing(image_px=12, eval_crop=crop, normalization=normalization).evaluation_view
    options = describe_pixels(view, 12)
    assert options is not None
    # Without padding, or of the whole image, a crop is also that of another method.
    if padding_px and method != "none":
        assert (options["eval_crop"], options["padding_px"]) == (method, padding_px)
    # Smaller, as large, halved once and three times, and very long.
    for size in ((5, 7), (12, 12), (40, 30), (111, 150), (10, 99)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        pixels = prepare(image, **options)
        assert pixels.dtype == np.float32
        np.testing.assert_allclose(pixels, view(tf.constant(image)), atol=2e-5)


@pytest.mark.parametrize("method", METHODS[:3])
@pytest.mark.parametrize(
    ("image_px", "padding_px"),
    # Neighbours crop small images alike; more padding than image; the default; the smallest.
    [(160, 92), (64, 37), (16, 17), (16, 48), (32, 5), (2, 1)],
)
def test_the_padding_is_found(method, image_px, padding_px):
    crop = functools.partial(eval_crop, method=method, padding_px=padding_px)
    view = Preprocessing(image_px=image_px, eval_crop=crop).evaluation_view
    options = describe_pixels(view, image_px)
    assert options is not None
    assert (options["eval_crop"], options["padding_px"]) == (method, padding_px)


def test_another_crop_is_not_described():
    def corner(image, *, size_px):
        return tf.cast(image[..., :size_px, :size_px, :], tf.float32)

    view = Preprocessing(image_px=6, eval_crop=corner).evaluation_view
    assert describe_pixels(view, 6) is None


def test_an_unknown_crop_is_rejected():
    with pytest.raises(ValueError, match="unknown eval_crop 'corner'"):
        prepare(
            np.zeros((8, 8, 3), np.uint8),
            image_px=6,
            eval_crop="corner",
            padding_px=1,
            scale=[2.0] * 3,
            offset=[-1.0] * 3,
        )
