"""The picture of the augmented views: its layout, and images of any size."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import views
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.training.view_sheet import view_sheet


def sheet_of(*shapes, image_px, **options):
    """The sheet [H, W, 3] of white images of these shapes."""
    encoded = tf.constant(
        [tf.io.encode_png(np.full((*shape, 3), 255, np.uint8)).numpy() for shape in shapes]
    )
    split = IndexedSplit(np.zeros(len(shapes), int), lambda number: tf.gather(encoded, number))
    png = view_sheet(split, views.Preprocessing(image_px), views.identity, seed=0, **options)
    return tf.io.decode_png(png).numpy()


def test_a_row_has_the_evaluation_crop_and_the_views_of_an_image():
    sheet = sheet_of((20, 30), (9, 9), image_px=8, num_views=3, gap_px=2)
    assert sheet.shape == (2 * (8 + 2), (1 + 3) * (8 + 2), 3)


@pytest.mark.parametrize("shape", [(2, 640), (640, 2), (1, 1), (1, 300)])
def test_images_of_extreme_aspect_ratio_have_views(shape):
    sheet = sheet_of(shape, image_px=8, num_views=2)
    assert sheet.shape == (8 + 2, 3 * (8 + 2), 3)
    assert (sheet == 255).all()


def test_large_views_are_scaled_down():
    assert sheet_of((30, 30), image_px=400, num_views=2).shape == (256 + 2, 3 * (256 + 2), 3)
