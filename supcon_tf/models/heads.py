"""Heads that take an embedding: the projection head and the linear classifier."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
from keras import layers, ops

from supcon_tf.errors import UserError, check_flag, check_integer
from supcon_tf.models.batch_norm import BatchNormalization
from supcon_tf.models.initializers import Initializer, new_initializer


@keras.saving.register_keras_serializable(package="supcon_tf")
class L2Normalization(layers.Layer):
    """Scales vectors to unit length, in float32 under any global dtype policy.

    z / max(||z||, 1e-6). A vector of zeros has no gradient, while the gradient of
    `keras.layers.UnitNormalization` is NaN at zero.

    Maps float [..., D] to float32 [..., D].

    Example:
      >>> import numpy as np
      >>> from supcon_tf.models.heads import L2Normalization
      >>> L2Normalization()(np.float32([[3.0, 4.0]])).numpy().round(2).tolist()
      [[0.6000000238418579, 0.800000011920929]]
    """

    def __init__(self, *, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)

    def call(self, inputs):
        squared_norm = ops.sum(ops.square(inputs), axis=-1, keepdims=True)
        scale = ops.rsqrt(ops.maximum(squared_norm, 1e-12))
        return inputs * ops.where(squared_norm > 0, scale, 0.0)

    def compute_output_shape(self, input_shape):
        return input_shape


def projection_head(
    input_dim: int,
    *,
    units: Sequence[int] = (2048, 128),
    batch_norm: bool = False,
    normalize: bool = True,
    last_bias: bool = False,
    kernel_initializer: Initializer | None = None,
    bias_initializer: Initializer = "zeros",
    name: str = "projection_head",
) -> keras.Model:
    """A multi-layer perceptron from the embedding to the projection that contrastive losses take.

    z = W_k relu(... relu(W_1 x + b_1)), L2-normalised (Khosla et al. 2020, arXiv 2004.11362). With
    `batch_norm` the hidden layers have batch normalisation in place of a bias, as in SimCLR. The
    defaults are the released TensorFlow code's. The SupCon authors' PyTorch code has `last_bias`
    and `FanInUniform` for kernels and biases.

    Args:
      input_dim: length of the embedding.
      units: size of each layer; the last one is the length of the projection.
      batch_norm: batch normalisation of the hidden layers, over the global batch.
      normalize: L2-normalise the projection.
      last_bias: the last layer has a bias.
      kernel_initializer: a Keras initializer of the kernels, or its name; None for N(0, 0.01).
      bias_initializer: the same for the biases.
      name: name of the model, and the prefix of its layers' names.

    Returns:
      A model from float [B, input_dim] to float32 [B, units[-1]].

    Raises:
      UserError: if `units` is not a sequence of one or more integers >= 1, or another option is not
        of its kind.

    Example:
      >>> from supcon_tf import models
      >>> models.projection_head(512, units=(128,)).count_params() == 512 * 128
      True
    """
    units = check_units(units)
    check_integer("input_dim", input_dim, at_least=1)
    check_flag("batch_norm", batch_norm)
    check_flag("normalize", normalize)
    check_flag("last_bias", last_bias)
    dense = partial(
        _dense, kernel_initializer=kernel_initializer, bias_initializer=bias_initializer
    )
    x = inputs = keras.Input((input_dim,), name="embedding")
    for i, hidden in enumerate(units[:-1], start=1):
        x = dense(x, hidden, use_bias=not batch_norm, name=f"{name}_dense{i}")
        if batch_norm:
            x = BatchNormalization(
                momentum=0.9, epsilon=1e-5, synchronized=True, name=f"{name}_bn{i}"
            )(x)
        x = layers.ReLU(name=f"{name}_relu{i}")(x)
    x = dense(x, units[-1], use_bias=last_bias, name=f"{name}_dense{len(units)}")
    if normalize:
        x = L2Normalization(name=f"{name}_normalize")(x)
    else:
        x = layers.Activation("linear", dtype="float32", name=f"{name}_float32")(x)
    return keras.Model(inputs, x, name=name)


def build_head(part: str, make: Callable[..., keras.Model], dim: int, *args, **kwargs) -> Any:
    """The head that a function makes, under the name of its part, by which models find it.

    Args:
      part: "projection_head" or "classifier".
      make: dim, *args, **kwargs -> a model from vectors [B, dim] to vectors.

    Raises:
      UserError: not a function, or its result does not map vectors to vectors.
    """
    if not callable(make) or isinstance(make, layers.Layer):
        raise UserError(f"{part} must be a function such as models.projection_head, got {make!r}")
    head = make(dim, *args, **kwargs)
    if not isinstance(head, layers.Layer):
        raise UserError(f"the function of the {part} must return a Keras model, got {head!r}")
    inputs = keras.Input((dim,), name="embedding")
    outputs = head(inputs)
    if not isinstance(outputs, keras.KerasTensor) or len(outputs.shape) != 2:
        raise UserError(
            f"the {part} must map vectors [B, {dim}] to vectors, got {head.name} with output "
            f"{outputs}"
        )
    return head if head.name == part else keras.Model(inputs, outputs, name=part)


def check_units(units: Sequence[int]) -> tuple[int, ...]:
    """Returns the layer sizes of a projection head as integers.

    Raises:
      UserError: if `units` is not a sequence of one or more integers >= 1.
    """
    is_sequence = isinstance(units, Sequence) and not isinstance(units, str)
    if not is_sequence or not units:
        raise UserError(
            "projection must be a sequence of the head's layer sizes, such as (2048, 128) or "
            f"(128,), got {units!r}"
        )
    return tuple(check_integer("a layer size of projection", size, at_least=1) for size in units)


def classification_head(
    input_dim: int,
    num_classes: int,
    *,
    zero_init: bool = False,
    kernel_initializer: Initializer = "glorot_uniform",
    bias_initializer: Initializer = "zeros",
    name: str = "classifier",
) -> keras.Model:
    """One dense layer from the embedding to class logits.

    Args:
      input_dim: length of the embedding.
      num_classes: C, at least 2.
      zero_init: initialise the kernel with zeros.
      kernel_initializer: a Keras initializer of the kernel, or its name. PyTorch's is
        `FanInUniform`, for kernel and bias.
      bias_initializer: the same for the bias.
      name: name of the model and of its layer.

    Returns:
      A model from float [B, input_dim] to float32 [B, C].

    Raises:
      UserError: if `num_classes` is below 2, an initializer is unknown, or `zero_init` is combined
        with another `kernel_initializer`.

    Example:
      >>> from supcon_tf import models
      >>> models.classification_head(512, 10).output_shape
      (None, 10)
    """
    num_classes = check_integer("num_classes", num_classes, at_least=2)
    check_integer("input_dim", input_dim, at_least=1)
    check_flag("zero_init", zero_init)
    if zero_init and kernel_initializer != "glorot_uniform":
        raise UserError(
            "kernel_initializer has no effect with zero_init = True, got "
            f"{kernel_initializer!r}: set zero_init = False"
        )
    inputs = keras.Input((input_dim,), name="embedding")
    logits = _dense(
        inputs,
        num_classes,
        kernel_initializer="zeros" if zero_init else kernel_initializer,
        bias_initializer=bias_initializer,
        dtype="float32",
        name=name,
    )
    return keras.Model(inputs, logits, name=name)


def normalizing_head(
    input_dim: int,
    num_classes: int,
    *,
    head: Callable[..., keras.Model] = classification_head,
    name: str = "classifier",
    **options: Any,
) -> keras.Model:
    """A classification head on the embedding scaled to unit length.

    Args:
      input_dim: length of the embedding.
      num_classes: C, at least 2.
      head: makes the head, as `classification_head`.
      name: name of the model.
      **options: options of the head.

    Returns:
      A model from float [B, input_dim] to float32 [B, C].

    Example:
      >>> from supcon_tf import models
      >>> head = models.normalizing_head(512, 10)
      >>> [tuple(variable.shape) for variable in head.trainable_variables]
      [(512, 10), (10,)]
    """
    inputs = keras.Input((input_dim,), name="embedding")
    unit_length = L2Normalization(name="normalize")(inputs)
    return keras.Model(inputs, head(input_dim, num_classes, **options)(unit_length), name=name)


def _dense(
    x: keras.KerasTensor,
    units: int,
    *,
    use_bias: bool = True,
    kernel_initializer: Initializer | None,
    bias_initializer: Initializer,
    dtype: str | None = None,
    name: str,
) -> keras.KerasTensor:
    if kernel_initializer is None:
        kernel = keras.initializers.RandomNormal(stddev=0.01)
    else:
        kernel = new_initializer("kernel_initializer", kernel_initializer)
    return layers.Dense(
        units,
        use_bias=use_bias,
        kernel_initializer=kernel,
        bias_initializer=new_initializer("bias_initializer", bias_initializer, fan_in=x.shape[-1]),
        dtype=dtype,
        name=name,
    )(x)
