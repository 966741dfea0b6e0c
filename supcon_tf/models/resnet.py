"""Residual networks of the contrastive-learning papers, as functional Keras models."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, get_args

import keras
from keras import layers

from supcon_tf.errors import UserError
from supcon_tf.models.batch_norm import BatchNormalization

Stem = Literal["imagenet", "cifar"]

_BLOCKS_PER_GROUP = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
_RESNEXT_GROUPS = 64


def resnet(
    depth: int = 50,
    *,
    width: float = 1.0,
    stem: Stem = "imagenet",
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    zero_init_last_gamma: bool = True,
    synchronized_batch_norm: bool = True,
    name: str | None = None,
) -> keras.Model:
    """ResNet v1 without a classifier: images to globally averaged features.

    y = relu(F(x) + shortcut(x)) per block (He et al. 2015, arXiv 1512.03385), with the stride on
    the 3x3 convolution of a bottleneck and a projection shortcut in the first block of every
    group, also where the shapes agree, as in the released SupCon and SimCLR code.

    Args:
      depth: 18 or 34 (two 3x3 convolutions a block), 50, 101, 152 or 200 (bottlenecks).
      width: multiplies the filters of every convolution.
      stem: "imagenet" is a 7x7 convolution with stride 2 and a 3x3 max pool with stride 2;
        "cifar" is a 3x3 convolution with stride 1.
      input_shape: height and width in pixels (None: any) and channels.
      zero_init_last_gamma: every block starts as the identity (Goyal et al. 2017).
      synchronized_batch_norm: statistics over the global batch instead of each replica's own.
      name: of the model; "resnet50" and so on by default.

    Returns:
      A model from float [B, H, W, C] to float32 [B, D], D = 512 width (18, 34) or 2048 width.

    Raises:
      UserError: for an unknown depth or stem, or a width that leaves no filter.

    Example:
      >>> from supcon_tf import models
      >>> models.resnet(18, stem="cifar").output_shape
      (None, 512)
    """
    if depth not in _BLOCKS_PER_GROUP:
        raise UserError(f"depth must be one of {[*_BLOCKS_PER_GROUP]}, got {depth}")
    if width < 1 / 64:
        raise UserError(f"width must be >= 1/64 (one filter in the stem), got {width}")
    return _residual_network(
        _bottleneck_convs if depth >= 50 else _basic_convs,
        depth=depth,
        width=width,
        stem=stem,
        input_shape=input_shape,
        zero_init_last_gamma=zero_init_last_gamma,
        synchronized_batch_norm=synchronized_batch_norm,
        name=name or f"resnet{depth}",
    )


def resnext(
    depth: int = 50,
    *,
    width: float = 1.0,
    stem: Stem = "imagenet",
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    zero_init_last_gamma: bool = False,
    synchronized_batch_norm: bool = True,
    name: str | None = None,
) -> keras.Model:
    """ResNeXt: a ResNet whose 3x3 convolutions have 64 groups and twice the filters.

    Xie et al. 2016 (arXiv 1611.05431). Keras compiles every grouped convolution with XLA, because
    TensorFlow has no gradient of it on CPU. There, compile the whole step too (`jit_compile=True`):
    a step of ResNeXt-50 on 2 cores took 0.3 s with and 7 s without (8 images of 32 px).

    Args:
      depth: 50, 101, 152 or 200.
      width: multiplies the filters of every convolution; a multiple of 0.5, because the groups
        must divide them.
      stem: as in `resnet`.
      input_shape: height and width in pixels (None: any) and channels.
      zero_init_last_gamma: as in `resnet`, off in the released models.
      synchronized_batch_norm: statistics over the global batch instead of each replica's own.
      name: of the model; "resnext50" and so on by default.

    Returns:
      A model from float [B, H, W, C] to float32 [B, 2048 width].

    Raises:
      UserError: for an unknown depth or stem, or a width that 64 groups do not divide.

    Example:
      >>> from supcon_tf import models
      >>> models.resnext(50, width=0.5).output_shape
      (None, 1024)
    """
    depths = [depth for depth in _BLOCKS_PER_GROUP if depth >= 50]
    if depth not in depths:
        raise UserError(f"depth must be one of {depths}, got {depth}")
    if width <= 0 or width % 0.5:
        raise UserError(f"width must be a positive multiple of 0.5, got {width}")
    return _residual_network(
        _resnext_convs,
        depth=depth,
        width=width,
        stem=stem,
        input_shape=input_shape,
        zero_init_last_gamma=zero_init_last_gamma,
        synchronized_batch_norm=synchronized_batch_norm,
        name=name or f"resnext{depth}",
    )


class _Conv(NamedTuple):
    filters: int
    kernel_size: int
    strides: int = 1
    groups: int = 1


def _basic_convs(filters: int, strides: int) -> tuple[_Conv, ...]:
    return _Conv(filters, 3, strides), _Conv(filters, 3)


def _bottleneck_convs(filters: int, strides: int) -> tuple[_Conv, ...]:
    return _Conv(filters, 1), _Conv(filters, 3, strides), _Conv(4 * filters, 1)


def _resnext_convs(filters: int, strides: int) -> tuple[_Conv, ...]:
    return (
        _Conv(2 * filters, 1),
        _Conv(2 * filters, 3, strides, _RESNEXT_GROUPS),
        _Conv(4 * filters, 1),
    )


def _residual_network(
    block_convs: Callable[[int, int], tuple[_Conv, ...]],
    *,
    depth: int,
    width: float,
    stem: Stem,
    input_shape: tuple[int | None, int | None, int],
    zero_init_last_gamma: bool,
    synchronized_batch_norm: bool,
    name: str,
) -> keras.Model:
    if stem not in get_args(Stem):
        raise UserError(f"stem must be one of {get_args(Stem)}, got {stem!r}")
    batch_norm = partial(
        BatchNormalization,
        momentum=0.9,
        epsilon=1e-5,
        synchronized=synchronized_batch_norm,
    )

    images = keras.Input(input_shape, name="images")
    kernel_size, strides = (7, 2) if stem == "imagenet" else (3, 1)
    x = _convolve(images, _Conv(int(64 * width), kernel_size, strides), name="stem_conv")
    x = batch_norm(name="stem_bn")(x)
    x = layers.ReLU(name="stem_relu")(x)
    if stem == "imagenet":
        x = layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    for group, blocks in enumerate(_BLOCKS_PER_GROUP[depth]):
        filters = int(64 * 2**group * width)
        for block in range(blocks):
            x = _residual_block(
                x,
                block_convs(filters, 2 if group > 0 and block == 0 else 1),
                project=block == 0,
                batch_norm=batch_norm,
                last_gamma="zeros" if zero_init_last_gamma else "ones",
                name=f"group{group + 1}_block{block + 1}",
            )
    # Averaged in float32, so that a bfloat16 network still gives a float32 embedding.
    x = layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
    return keras.Model(images, x, name=name)


def _residual_block(
    x: keras.KerasTensor,
    convs: tuple[_Conv, ...],
    *,
    project: bool,
    batch_norm: Callable[..., layers.Layer],
    last_gamma: str,
    name: str,
) -> keras.KerasTensor:
    """relu(F(x) + shortcut(x)): F is the convolutions, each with BN and all but the last a ReLU."""
    shortcut = x
    if project:
        strides = max(conv.strides for conv in convs)
        shortcut = _convolve(x, _Conv(convs[-1].filters, 1, strides), name=f"{name}_shortcut_conv")
        shortcut = batch_norm(name=f"{name}_shortcut_bn")(shortcut)
    for i, conv in enumerate(convs[:-1], start=1):
        x = _convolve(x, conv, name=f"{name}_conv{i}")
        x = batch_norm(name=f"{name}_bn{i}")(x)
        x = layers.ReLU(name=f"{name}_relu{i}")(x)
    x = _convolve(x, convs[-1], name=f"{name}_conv{len(convs)}")
    x = batch_norm(gamma_initializer=last_gamma, name=f"{name}_bn{len(convs)}")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_out")(x)


def _convolve(x: keras.KerasTensor, conv: _Conv, *, name: str) -> keras.KerasTensor:
    strides, padding = conv.strides, "same"
    if strides > 1 and conv.kernel_size == 1:
        # Skips pixels before the convolution: TensorFlow 2.21 with oneDNN gets the gradient of a
        # strided 1x1 kernel wrong below 8 input channels.
        x = layers.AveragePooling2D(1, strides=strides, name=f"{name}_subsample")(x)
        strides = 1
    elif strides > 1:
        # "same" would pad a strided convolution differently for odd and even sizes.
        before = (conv.kernel_size - 1) // 2
        after = conv.kernel_size - 1 - before
        x = layers.ZeroPadding2D(((before, after), (before, after)), name=f"{name}_pad")(x)
        padding = "valid"
    return layers.Conv2D(
        conv.filters,
        conv.kernel_size,
        strides=strides,
        padding=padding,
        groups=conv.groups,
        use_bias=False,
        kernel_initializer="variance_scaling",
        name=name,
    )(x)
