"""Small pictures of images of any size and number of channels."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.evaluation.thumbnails import resize_longer_side, thumbnail, thumbnails


def noise(*shape):
    return np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(2, 640, 3), (640, 2, 3), (1, 5000, 3), (5000, 1, 3), (1, 1, 3)])
def test_images_of_extreme_aspect_ratio_have_a_thumbnail(shape):
    picture = thumbnail(tf.constant(noise(*shape)))
    assert (picture.shape, picture.dtype) == ((48, 48, 3), np.uint8)
    # The longer side fills the square, and the image lies in its centre.
    assert picture[23, 23].all()
    assert np.count_nonzero(picture.any(axis=2)) == (48 * 48 if shape[0] == shape[1] else 48)


def test_the_aspect_ratio_is_kept_and_the_rest_is_black():
    picture = thumbnail(tf.constant(np.full((30, 60, 3), 200, np.uint8)))
    expected = np.zeros((48, 48, 3), np.uint8)
    expected[12:36] = 200
    np.testing.assert_array_equal(picture, expected)


def test_encoded_images_are_decoded():
    image = np.full((8, 8, 3), (10, 20, 30), np.uint8)
    np.testing.assert_array_equal(thumbnail(tf.io.encode_png(image))[0, 0], (10, 20, 30))


@pytest.mark.parametrize(
    ("channels", "expected"), [(1, (1, 1, 1)), (2, (1, 2, 0)), (4, (1, 2, 3)), (9, (1, 2, 3))]
)
def test_other_numbers_of_channels_become_three(channels, expected):
    image = np.broadcast_to(np.arange(1, channels + 1, dtype=np.uint8), (5, 7, channels))
    assert resize_longer_side(image, 7)[0, 0].tolist() == list(expected)


def test_an_image_that_cannot_be_drawn_is_logged_and_black(caplog):
    image = np.full((48, 48, 3), 9, np.uint8)
    pictures = thumbnails([tf.constant(image), tf.constant(b"not an image"), tf.zeros([7])])
    np.testing.assert_array_equal(pictures, [image, 0 * image, 0 * image])
    assert "no thumbnail of image 1" in caplog.text
    assert "no thumbnail of image 2" in caplog.text
