"""The corruptions of ImageNet-C, applied to an image."""

import sys

import numpy as np
import pytest

from supcon_tf.data.imagenet_c import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
from supcon_tf.errors import UserError

ALL = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
# Corruptions that are random.
RANDOM = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur"),
    *("motion_blur", "snow", "frost", "fog", "elastic_transform", "spatter"),
)


def photo(height=32, width=32):
    """Smooth colours and an edge, as in a photo."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [
        120 + 80 * np.sin(x / 5),
        110 + 90 * np.cos(y / 7 + x / 9),
        np.where(x > width / 2, 200, 40),
    ]
    return np.stack(channels, axis=-1).astype(np.uint8)


def corrupted(corruption, *, image=None, severity=3, seed=0, number=0):
    image = photo() if image is None else image
    return corrupt(image, corruption=corruption, severity=severity, seed=seed, number=number)


@pytest.mark.parametrize("corruption", ALL)
def test_each_corruption_changes_an_image_of_32_px_and_keeps_its_shape(corruption):
    image = photo()
    for severity in (1, 5):
        result = corrupted(corruption, image=image, severity=severity)
        assert (result.shape, result.dtype) == (image.shape, np.uint8)
        assert (result != image).any()
    np.testing.assert_array_equal(image, photo())


@pytest.mark.parametrize("corruption", ALL)
def test_image_may_be_of_any_shape(corruption, capsys):
    assert corrupted(corruption, image=photo(33, 47)).shape == (33, 47, 3)
    # The library would print if it cannot fit a layer to the image.
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("corruption", ALL)
def test_the_same_seed_gives_the_same_image(corruption):
    first = corrupted(corruption, seed=1, number=2)
    np.random.random()
    np.testing.assert_array_equal(corrupted(corruption, seed=1, number=2), first)


@pytest.mark.parametrize("corruption", RANDOM)
def test_another_seed_or_number_gives_another_image(corruption):
    results = [
        corrupted(corruption, severity=5, seed=s, number=n) for s, n in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({result.tobytes() for result in results}) == 3


@pytest.mark.parametrize("corruption", ["gaussian_noise", "defocus_blur", "contrast"])
def test_higher_severity_changes_pixels_more(corruption):
    def distance(severity):
        result = corrupted(corruption, severity=severity).astype(float)
        return np.mean((result - photo()) ** 2)

    assert distance(1) < distance(3) < distance(5)


def test_gaussian_noise_has_the_published_deviation():
    grey = np.full((128, 128, 3), 128, np.uint8)
    for severity, deviation in ((1, 0.08), (2, 0.12)):
        noise = corrupted("gaussian_noise", image=grey, severity=severity) / 255
        assert noise.std() == pytest.approx(deviation, rel=0.02)


def test_contrast_shrinks_towards_the_mean_of_each_channel():
    image = photo() / 255
    mean = image.mean(axis=(0, 1))
    # The library truncates.
    expected = np.floor(((image - mean) * 0.2 + mean) * 255 + 1e-9)
    result = corrupted("contrast", severity=3)
    np.testing.assert_allclose(result, expected, atol=1)
    assert (result == expected).mean() > 0.99


def test_global_generator_of_numpy_is_restored():
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    corrupted("gaussian_noise")
    assert np.random.random() == expected


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("corruption", ["spatter", "fog", "saturate", "brightness", "snow"])
def test_black_and_white_images_can_be_corrupted(corruption, level):
    plain = np.full((32, 32, 3), level, np.uint8)
    for severity in (1, 3, 5):
        assert corrupted(corruption, image=plain, severity=severity).shape == plain.shape


def test_image_below_32_px_is_rejected():
    with pytest.raises(UserError, match=r"image 7 is 40 x 31 px: .* at least 32 x 32"):
        corrupted("fog", image=photo(40, 31), number=7)


@pytest.mark.parametrize("severity", [0, 6, 2.5])
def test_unknown_severity_is_rejected(severity):
    with pytest.raises(UserError, match=f"severity must be one of .* got {severity}"):
        corrupted("fog", severity=severity)


def test_unknown_corruption_is_rejected():
    with pytest.raises(UserError, match=r"corruption must be one of .* got 'rain'"):
        corrupted("rain")


def test_missing_library_is_an_error_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(UserError, match="pip install imagecorruptions-imaug"):
        corrupted("fog")
