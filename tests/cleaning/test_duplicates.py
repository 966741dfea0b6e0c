"""Planted copies are found, other images are not."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from supcon_tf.cleaning import duplicate_pairs, signatures


def photo(seed):
    """A smooth random image, 120 x 90."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC)


def recompressed(image):
    content = io.BytesIO()
    image.save(content, "JPEG", quality=30)
    return Image.open(content)


COPIES = {
    "the same": lambda image: image,
    "recompressed": recompressed,
    "smaller": lambda image: image.resize((60, 45)),
    "brighter": lambda image: Image.fromarray((np.asarray(image) * 0.8 + 40).astype(np.uint8)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "cropped": lambda image: image.crop((6, 4, 114, 86)),
    "cropped more": lambda image: image.crop((12, 9, 108, 81)),
    "cropped and mirrored": lambda image: COPIES["cropped"](COPIES["mirrored"](image)),
}


def signed(images):
    small = [
        tf.image.resize(np.asarray(image, np.float32), [64, 64], antialias=True) for image in images
    ]
    return signatures(tf.stack(small))


@pytest.mark.parametrize("kind", COPIES)
def test_a_planted_copy_is_found(kind):
    photos = [photo(seed) for seed in range(8)]
    found = duplicate_pairs(signed([*photos, COPIES[kind](photos[3])]), threshold=0.97)
    assert [(pair.first, pair.second) for pair in found] == [(3, 8)]
    assert 0.97 <= found[0].similarity <= 1


def correlation(first, second):
    """Of the pixels of two images [64, 64, 3] at 16 px, after removing each channel's mean."""
    rows = []
    for image in (first, second):
        small = tf.image.resize(image, [16, 16], antialias=True).numpy().astype(np.float64)
        for channel in range(3):
            small[..., channel] -= small[..., channel].mean()
        rows.append(small.ravel() / np.sqrt((small**2).sum()))
    return sum(rows[0] * rows[1])


def test_signatures_are_correlations_of_pixels():
    first, second = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    rows = signatures(tf.stack([first, second]))
    whole = rows[1, 0]
    assert rows[0, 0] @ whole == pytest.approx(correlation(first, second), abs=1e-5)
    assert rows[0, 3] @ whole == pytest.approx(correlation(first[:, ::-1], second), abs=1e-5)
    assert rows[0, 1] @ whole == pytest.approx(correlation(first[3:61, 3:61], second), abs=1e-5)


def test_images_of_one_colour_are_no_duplicates():
    grey = np.full((64, 64, 3), 77.0, np.float32)
    assert duplicate_pairs(signatures(tf.stack([grey, grey])), threshold=0.5) == []
