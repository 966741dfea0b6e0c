"""ResNet and ResNeXt encoders of the contrastive-learning papers, as functional Keras models."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import keras
from keras import layers

from supcon_tf.errors import UserError, check_choice, check_flag, check_integer, check_number
from supcon_tf.models.batch_norm import BatchNormalization
from supcon_tf.models.initializers import Initializer, new_initializer
from supcon_tf.models.origin import Origin, with_origin

Stem = Literal["imagenet", "pytorch", "cifar"]
Shortcut = Literal["projection", "identity_where_possible"]

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
    kernel_initializer: Initializer = "variance_scaling",
    shortcut: Shortcut = "projection",
    synchronized_batch_norm: bool = True,
    name: str | None = None,
) -> keras.Model:
    """ResNet v1 encoder without a classifier: images to globally averaged features.

    Each block computes y = relu(F(x) + shortcut(x)) (He et al. 2015, arXiv 1512.03385). As in the
    released SupCon and SimCLR code, the 3x3 convolution of a bottleneck has the stride.

    Args:
      depth: 18 or 34 (two 3x3 convolutions per block), 50, 101, 152 or 200 (bottleneck blocks).
      width: multiplies the number of filters of every convolution.
      stem: "imagenet" is a 7x7 convolution with stride 2 and a 3x3 max pool with stride 2;
        "pytorch" pads this pool by a pixel on each side, as PyTorch's ResNets do; "cifar" is a 3x3
        convolution with stride 1.
      input_shape: (height, width, channels) of an image in pixels; None is any height or width.
      zero_init_last_gamma: initialise the last gamma of each block with zeros, so that the block
        starts as its shortcut (Goyal et al. 2017, arXiv 1706.02677).
      kernel_initializer: a Keras initializer of the convolutions, or its name. The default is that
        of the released TensorFlow code; PyTorch's ResNets have He et al.'s normal distribution,
        `keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")`.
      shortcut: "projection" has a 1x1 convolution in the first block of every group, also where the
        shapes agree, as in the released TensorFlow code; "identity_where_possible" only where they
        differ, as in PyTorch's ResNets. They differ at depths 18 and 34.
      synchronized_batch_norm: batch statistics of the global batch; False: of each replica.
      name: name of the model; "resnet50" and so on when None.

    Returns:
      A model from float [B, H, W, C] to float32 [B, D], D = 512 width (18, 34) or 2048 width.

    Raises:
      UserError: for an unknown depth, stem, initializer or shortcut, a width below 1/64, or another
        input shape.

    Example:
      >>> from supcon_tf import models
      >>> models.resnet(18, stem="cifar").output_shape
      (None, 512)
    """
    if depth not in _BLOCKS_PER_GROUP:
        raise UserError(f"depth must be one of {[*_BLOCKS_PER_GROUP]}, got {depth!r}")
    check_number("width", width, above=0)
    if width < 1 / 64:
        raise UserError(f"width must be >= 1/64 (one filter in the stem), got {width}")
    return _residual_network(
        _bottleneck_convs if depth >= 50 else _basic_convs,
        depth=depth,
        width=width,
        stem=stem,
        input_shape=input_shape,
        zero_init_last_gamma=zero_init_last_gamma,
        kernel_initializer=kernel_initializer,
        shortcut=shortcut,
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
    kernel_initializer: Initializer = "variance_scaling",
    shortcut: Shortcut = "projection",
    synchronized_batch_norm: bool = True,
    name: str | None = None,
) -> keras.Model:
    """ResNeXt encoder: a ResNet whose 3x3 convolutions have 64 groups and twice the filters.

    Xie et al. 2016, arXiv 1611.05431. TensorFlow has no gradient of a grouped convolution on CPU,
    so Keras compiles each one with XLA. On a CPU, compile the whole step as well
    (`jit_compile=True`): on 2 cores, a step of ResNeXt-50 (8 images of 32 px) took 0.3 s with it
    and 7 s without.

    Args:
      depth: 50, 101, 152 or 200.
      width: multiplies the number of filters of every convolution; a multiple of 0.5, because 64
        groups must divide them.
      stem, input_shape, kernel_initializer, shortcut, synchronized_batch_norm: as in `resnet`.
      zero_init_last_gamma: as in `resnet`; False in the released models.
      name: name of the model; "resnext50" and so on when None.

    Returns:
      A model from float [B, H, W, C] to float32 [B, 2048 width].

    Raises:
      UserError: for an unknown depth, stem, initializer or shortcut, another width, or another
        input shape.

    Example:
      >>> from supcon_tf import models
      >>> models.resnext(50, width=0.5).output_shape
      (None, 1024)
    """
    depths = [depth for depth in _BLOCKS_PER_GROUP if depth >= 50]
    if depth not in depths:
        raise UserError(f"depth must be one of {depths}, got {depth!r}")
    check_number("width", width, above=0)
    if width % 0.5:
        raise UserError(f"width must be a positive multiple of 0.5, got {width}")
    return _residual_network(
        _resnext_convs,
        depth=depth,
        width=width,
        stem=stem,
        input_shape=input_shape,
        zero_init_last_gamma=zero_init_last_gamma,
        kernel_initializer=kernel_initializer,
        shortcut=shortcut,
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
    kernel_initializer: Initializer,
    shortcut: Shortcut,
    synchronized_batch_norm: bool,
    name: str,
) -> keras.Model:
    check_flag("zero_init_last_gamma", zero_init_last_gamma)
    check_flag("synchronized_batch_norm", synchronized_batch_norm)
    check_choice("stem", stem, get_args(Stem))
    check_choice("shortcut", shortcut, get_args(Shortcut))
    convolve = partial(_convolve, kernel_initializer=kernel_initializer)
    batch_norm = partial(
        BatchNormalization,
        momentum=0.9,
        epsilon=1e-5,
        synchronized=synchronized_batch_norm,
    )

    images = keras.Input(_check_input_shape(input_shape), name="images")
    kernel_size, strides = (3, 1) if stem == "cifar" else (7, 2)
    x = convolve(images, _Conv(int(64 * width), kernel_size, strides), name="stem_conv")
    x = batch_norm(name="stem_bn")(x)
    x = layers.ReLU(name="stem_relu")(x)
    if stem == "pytorch":
        x = layers.ZeroPadding2D(1, data_format="channels_last", name="stem_pool_pad")(x)
    if stem != "cifar":
        padding = "same" if stem == "imagenet" else "valid"
        x = layers.MaxPooling2D(
            3, strides=2, padding=padding, data_format="channels_last", name="stem_pool"
        )(x)
    for group, blocks in enumerate(_BLOCKS_PER_GROUP[depth]):
        filters = int(64 * 2**group * width)
        for block in range(blocks):
            convs = block_convs(filters, 2 if group > 0 and block == 0 else 1)
            is_same_shape = group == 0 and x.shape[-1] == convs[-1].filters
            x = _residual_block(
                x,
                convs,
                project=block == 0 and not (is_same_shape and shortcut != "projection"),
                convolve=convolve,
                batch_norm=batch_norm,
                last_gamma="zeros" if zero_init_last_gamma else "ones",
                name=f"group{group + 1}_block{block + 1}",
            )
    # float32, so that a bfloat16 network also returns a float32 embedding.
    x = layers.GlobalAveragePooling2D(data_format="channels_last", dtype="float32", name="pool")(x)
    return with_origin(keras.Model(images, x, name=name), Origin(name, "random"))


def _check_input_shape(input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
    is_sequence = isinstance(input_shape, Sequence) and not isinstance(input_shape, str)
    if not is_sequence or len(input_shape) != 3 or input_shape[2] is None:
        raise UserError(
            "input_shape must be (height, width, channels) with known channels, "
            f"got {input_shape!r}"
        )
    return tuple(
        size if size is None else check_integer("a size of input_shape", size, at_least=1)
        for size in input_shape
    )


def _residual_block(
    x: keras.KerasTensor,
    convs: tuple[_Conv, ...],
    *,
    project: bool,
    convolve: Callable[..., keras.KerasTensor],
    batch_norm: Callable[..., layers.Layer],
    last_gamma: str,
    name: str,
) -> keras.KerasTensor:
    """relu(F(x) + shortcut(x)); F is convolutions with batch norm, all but the last with ReLU."""
    shortcut = x
    if project:
        strides = max(conv.strides for conv in convs)
        shortcut = convolve(x, _Conv(convs[-1].filters, 1, strides), name=f"{name}_shortcut_conv")
        shortcut = batch_norm(name=f"{name}_shortcut_bn")(shortcut)
    for i, conv in enumerate(convs[:-1], start=1):
        x = convolve(x, conv, name=f"{name}_conv{i}")
        x = batch_norm(name=f"{name}_bn{i}")(x)
        x = layers.ReLU(name=f"{name}_relu{i}")(x)
    x = convolve(x, convs[-1], name=f"{name}_conv{len(convs)}")
    x = batch_norm(gamma_initializer=last_gamma, name=f"{name}_bn{len(convs)}")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_out")(x)


def _convolve(
    x: keras.KerasTensor,
    conv: _Conv,
    *,
    kernel_initializer: Initializer = "variance_scaling",
    name: str,
) -> keras.KerasTensor:
    strides, padding = conv.strides, "same"
    if strides > 1 and conv.kernel_size == 1:
        # Drops pixels before the convolution, because TensorFlow 2.21 with oneDNN computes a wrong
        # gradient of a strided 1x1 kernel with fewer than 8 input channels.
        x = layers.AveragePooling2D(
            1, strides=strides, data_format="channels_last", name=f"{name}_subsample"
        )(x)
        strides = 1
    elif strides > 1:
        # "same" pads a strided convolution differently for odd and even sizes.
        before = (conv.kernel_size - 1) // 2
        after = conv.kernel_size - 1 - before
        x = layers.ZeroPadding2D(
            ((before, after), (before, after)), data_format="channels_last", name=f"{name}_pad"
        )(x)
        padding = "valid"
    return layers.Conv2D(
        conv.filters,
        conv.kernel_size,
        strides=strides,
        padding=padding,
        data_format="channels_last",
        groups=conv.groups,
        use_bias=False,
        kernel_initializer=new_initializer("kernel_initializer", kernel_initializer),
        name=name,
    )(x)
