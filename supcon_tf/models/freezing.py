"""Freezes the first layers of an encoder, or the statistics of its batch normalisation."""

import re
from collections.abc import Iterator

import keras

from supcon_tf.errors import UserError, check_flag, check_text


def freeze(encoder: keras.Model, *, through: str | None = None, batch_norm: bool = False) -> None:
    """Freezes layers of an encoder for fine-tuning.

    Frozen weights do not train, and frozen batch normalisation uses its moving averages and leaves
    them unchanged. The gradient ends behind the frozen first layers, which saves their backward
    pass.

    Args:
      encoder: a Keras model; it is changed in place, before it is compiled.
      through: name of a layer, or how the names of a block start, such as "group2": the last layer
        with such a name and all layers before it are frozen. "block1" is not the start of
        "block10_add". None freezes no first layers.
      batch_norm: freeze all layers of batch normalisation, scale and offset included.

    Raises:
      UserError: no layer has such a name, or there is no batch normalisation.

    Example:
      >>> from supcon_tf import models
      >>> encoder = models.resnet(18, width=0.25, stem="cifar")
      >>> models.freeze(encoder, through="group3")
      >>> {variable.path.split("_")[0] for variable in encoder.trainable_variables}
      {'group4'}
    """
    check_flag("freeze_batch_norm", batch_norm)
    if through is not None:
        check_text("freeze_through", through, example="group2")
        layers = list(_layers_in_order(encoder))
        # A number goes on to its last digit.
        start = re.compile(re.escape(through) + (r"(?!\d)" if through[-1].isdigit() else ""))
        matching = [i for i, layer in enumerate(layers) if start.match(layer.name)]
        if not matching:
            # Layers without weights, such as activations, are left out to name the blocks.
            names = [layer.name for layer in layers if layer.weights]
            shown = [*names[:6], "...", *names[-6:]] if len(names) > 12 else names
            raise UserError(
                f"no layer of {encoder.name!r} has a name that starts with {through!r}, known are "
                f"{', '.join(shown)}"
            )
        for layer in layers[: matching[-1] + 1]:
            layer.trainable = False
    if batch_norm:
        norms = [
            layer
            for layer in encoder._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        if not norms:
            raise UserError(
                f"{encoder.name!r} has no batch normalisation to freeze: set freeze_batch_norm = "
                "False"
            )
        for layer in norms:
            layer.trainable = False


def _layers_in_order(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model from its input to its output, those of models inside it in place."""
    for layer in getattr(model, "layers", ()):
        if isinstance(layer, keras.Model) and layer.layers:
            yield from _layers_in_order(layer)
        else:
            yield layer
