import sys

import numpy as np
import pytest

from supcon_tf import models
from supcon_tf.errors import UserError

SCALE, OFFSET = (0.02, 0.03, 0.04), (-1.0, -2.0, -3.0)


def test_keras_hub_that_is_not_installed_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(UserError, match=r"needs KerasHub: pip install 'supcon-tf\[keras-hub\]'"):
        models.pretrained("keras_hub:resnet_50_imagenet")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    hub = pytest.importorskip("keras_hub")
    root = tmp_path_factory.mktemp("preset")
    network = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
    )
    converter = hub.layers.ResNetImageConverter(image_size=(32, 32), scale=SCALE, offset=OFFSET)
    preprocessor = hub.models.ResNetImageClassifierPreprocessor(converter)
    network.save_to_preset(root)
    preprocessor.save_to_preset(root)
    return root, network


def test_preset_is_loaded_with_its_scaling(backbone):
    root, network = backbone
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    scaled = (pixels * SCALE + OFFSET).astype("float32")
    expected = network(scaled).numpy().mean((1, 2))
    encoder = models.pretrained(f"keras_hub:{root}")
    np.testing.assert_allclose(encoder(pixels / 127.5 - 1), expected, rtol=1e-4, atol=1e-4)


def test_presets_that_are_not_there_are_rejected(backbone, tmp_path):
    for name, options, message in [
        ("resnet_50_imagenett", {}, "did you mean 'resnet_50_imagenet'"),
        (tmp_path, {}, "cannot be loaded: "),
        (backbone[0], {"weights": "a.h5"}, "must be 'imagenet' or None, got 'a.h5'"),
    ]:
        with pytest.raises(UserError, match=message) as raised:
            models.pretrained(f"keras_hub:{name}", **options)
        assert "\n" not in str(raised.value)
