"""Copies the weights of a PyTorch module into the Keras layers of the same network."""

from collections.abc import Callable, Iterable, Mapping

import keras
import numpy as np
from keras import layers

from supcon_tf.errors import UserError

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def load_torch_weights(
    model: keras.Model,
    tensors: Mapping[str, np.ndarray],
    torch_name: Callable[[str], str],
    *,
    source: str,
    ignored: Iterable[str] = (),
) -> None:
    """Sets all weights of a model of convolutions and batch normalisations.

    Args:
      model: the network. Its variables do not change if this raises.
      tensors: the state dict.
      torch_name: name of a Keras layer -> name of the PyTorch module.
      source: the file, for messages.
      ignored: first parts of names of tensors that the model does not have, such as "fc".

    Raises:
      UserError: a tensor is missing, of another shape, or not known to the model.
    """
    values = {}
    unknown = {
        name
        for name in tensors
        if not name.endswith(".num_batches_tracked") and name.split(".")[0] not in ignored
    }
    for layer in filter(lambda layer: layer.weights, model.layers):
        is_conv = isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D)
        for variable, part in zip(layer.weights, ("weight",) if is_conv else _BATCH_NORM):
            name = f"{torch_name(layer.name)}.{part}"
            if name not in tensors:
                raise UserError(f"{source} has no {name!r}, which {model.name} needs")
            # A depthwise convolution: [C, 1, h, w] -> [h, w, C, 1]; another: [O, I, h, w] ->
            # [h, w, I, O].
            is_depthwise = isinstance(layer, layers.DepthwiseConv2D)
            axes = ((2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0)) if is_conv else (0,)
            expected = tuple(variable.shape[axes.index(axis)] for axis in range(len(axes)))
            if tensors[name].shape != expected:
                raise UserError(
                    f"{name!r} in {source} is {tensors[name].shape}, and {model.name} needs "
                    f"{expected}"
                )
            values[variable.path] = (variable, tensors[name].transpose(axes).astype(np.float32))
            unknown.discard(name)
    if unknown:
        more = f" and {len(unknown) - 1} others" if len(unknown) > 1 else ""
        raise UserError(
            f"{source} has {min(unknown)!r}{more}, which {model.name} does not have: it is of "
            "another network"
        )
    for variable, value in values.values():
        variable.assign(value)
