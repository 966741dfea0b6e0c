"""The embedding part of a model: an encoder whose output is a float32 vector per input."""

from collections.abc import Sequence

import keras
from keras import layers, ops

from supcon_tf.errors import UserError, check_flag, check_integer
from supcon_tf.models.heads import L2Normalization

_OTHER_LAYERS = ("images", "frozen_encoder", "normalize", "float32")


def build_embedding(
    encoder: layers.Layer,
    image_shape: Sequence[int | None],
    *,
    normalize: bool,
    frozen: bool = False,
) -> keras.Model:
    """An encoder followed by a cast to float32 or by L2 normalisation.

    Args:
      encoder: a Keras model from float [B, *image_shape] to vectors [B, D].
      image_shape: shape of one sample; None is a size that may vary.
      normalize: scale the vectors to unit length.
      frozen: wrap the encoder in a `FrozenEncoder`.

    Returns:
      A model named "embedding" from float [B, *image_shape] to float32 [B, D].

    Raises:
      UserError: if the encoder does not take this shape or does not return vectors.
    """
    check_flag("normalize_embedding", normalize)
    _check_encoder(encoder, tuple(image_shape))
    if encoder.name in _OTHER_LAYERS:
        raise UserError(
            f"encoder must have another name than {encoder.name!r}, which a layer beside it has: "
            "give it a name"
        )
    images = keras.Input(image_shape, name="images")
    layer = FrozenEncoder(encoder, name="frozen_encoder") if frozen else encoder
    try:
        features = layer(images)
    except ValueError as error:
        # Keras' message for a feature map of negative size.
        if "size" not in str(error) or "negative" not in str(error).lower():
            raise
        raise UserError(
            f"images of {'x'.join(map(str, image_shape[:2]))} px are too small for {encoder.name}: "
            "set views.Preprocessing.image_px, or image_px of models.pretrained, to more"
        ) from None
    if not isinstance(features, keras.KerasTensor) or len(features.shape) != 2:
        raise UserError(
            "encoder must map images to vectors [B, D] (end it with a global pool), "
            f"got {encoder.name} with output {features}"
        )
    if features.shape[-1] is None:
        raise UserError(
            "encoder must return vectors of a known length (end it with a global pool), "
            f"got {encoder.name} with output {features}"
        )
    if normalize:
        final = L2Normalization(name="normalize")
    else:
        final = layers.Activation("linear", dtype="float32", name="float32")
    return keras.Model(images, final(features), name="embedding")


def embedding_model(model: keras.Model) -> keras.Model:
    """The encoder of a model of this package, with its normalisation and without its heads.

    Args:
      model: from `contrastive_model`, `classification_model`, `swav_model` or
        `momentum_memory_model`, also when loaded from a file.

    Returns:
      A model from float [B, *image_shape] to float32 [B, D], of unit length if `model`
      normalises its embedding. It shares its weights with `model`, and it is differentiable also
      where `model` stops the gradient.

    Raises:
      UserError: if `model` is not a model of this package.

    Example:
      >>> from supcon_tf import models
      >>> encoder = models.resnet(18, width=0.25, stem="cifar")
      >>> model = models.contrastive_model(encoder, image_shape=(32, 32, 3))
      >>> models.embedding_model(model).output_shape
      (None, 128)
    """
    layers_of_model = model.layers if isinstance(model, keras.Model) else []
    embedding = next((layer for layer in layers_of_model if layer.name == "embedding"), None)
    if not isinstance(embedding, keras.Model) or len(embedding.layers) != 3:
        raise UserError(
            f"model must be one of supcon_tf.models, such as contrastive_model, got "
            f"{getattr(model, 'name', model)}"
        )
    _, encoder, final = embedding.layers
    if not isinstance(encoder, FrozenEncoder):
        return embedding
    return keras.Model(embedding.input, final(encoder.layer(embedding.input)), name="embedding")


def model_parts(model: keras.Model) -> dict[str, keras.Model]:
    """The trainable parts of a model of this package.

    Args:
      model: as in `embedding_model`.

    Returns:
      {"encoder": the user's encoder, "projection_head": ..., "prototypes": ..., "classifier":
      ...}, with the parts that `model` has.

    Example:
      >>> from supcon_tf import models
      >>> encoder = models.resnet(18, width=0.25, stem="cifar")
      >>> model = models.contrastive_model(encoder, image_shape=(32, 32, 3), num_classes=10)
      >>> {name: len(part.trainable_variables) for name, part in models.model_parts(model).items()}
      {'encoder': 63, 'projection_head': 3, 'classifier': 2}
    """
    _, encoder, _ = embedding_model(model).layers
    heads = ("projection_head", "prototypes", "classifier")
    return {"encoder": encoder} | {
        layer.name: layer for layer in model.layers if layer.name in heads
    }


@keras.saving.register_keras_serializable(package="supcon_tf")
class FrozenEncoder(layers.Wrapper):
    """An encoder in inference mode behind a stopped gradient, also while the rest trains.

    A wrapper layer is needed: Keras overrides a `training=False` that is passed while a functional
    model is built by the `training` of the outer call.
    """

    def call(self, images):
        return ops.stop_gradient(self.layer(images, training=False))


def fold_views(views: keras.KerasTensor) -> keras.KerasTensor:
    """Moves the view axis into the batch: [B, V, ...] -> [B*V, ...]."""
    return ops.reshape(views, (-1, *views.shape[2:]))


def unfold_views(rows: keras.KerasTensor, num_views: int) -> keras.KerasTensor:
    """Undoes `fold_views`: [B*V, D] -> [B, V, D]."""
    return ops.reshape(rows, (-1, num_views, rows.shape[-1]))


def check_image_shape(image_shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of one sample as a tuple of 1 to 3 integers.

    Raises:
      UserError: if it is not a sequence of 1 to 3 known sizes.
    """
    is_sequence = isinstance(image_shape, Sequence) and not isinstance(image_shape, str)
    if not is_sequence or not 1 <= len(image_shape) <= 3 or None in image_shape:
        raise UserError(
            "image_shape must be known sizes of one sample: (height, width, channels), "
            f"(steps, features) or (features,), got {image_shape!r}"
        )
    return tuple(
        check_integer("each size of image_shape", size, at_least=1) for size in image_shape
    )


def _check_encoder(encoder: layers.Layer, image_shape: tuple[int | None, ...]) -> None:
    """Rejects an encoder with another input shape or with channels-first layers."""
    if not isinstance(encoder, layers.Layer):
        raise UserError(f"encoder must be a Keras model, got {encoder!r}")
    if isinstance(encoder, keras.Sequential) and not encoder.layers:
        raise UserError(f"encoder must have layers, got {encoder.name!r} without any")
    is_channels_first = keras.config.image_data_format() == "channels_first"
    for layer in encoder._flatten_layers() if is_channels_first else ():
        if getattr(layer, "data_format", None) == "channels_first":
            raise UserError(
                f"images are [height, width, channels], got the encoder layer {layer.name!r} with "
                "data_format='channels_first', the default that Keras is set to: set "
                '"image_data_format": "channels_last" in ~/.keras/keras.json, or data_format in '
                "the layer"
            )
    # A subclassed model has no inputs before its first call.
    shapes = [tuple(tensor.shape[1:]) for tensor in getattr(encoder, "inputs", None) or ()]
    if shapes and not (len(shapes) == 1 and _accepts(shapes[0], image_shape)):
        raise UserError(
            f"encoder must take images of shape {image_shape}, got {encoder.name!r} with "
            f"{'input' if len(shapes) == 1 else 'inputs'} {', '.join(map(str, shapes))}: change "
            "image_shape or the encoder's input"
        )


def _accepts(expected: tuple[int | None, ...], given: tuple[int | None, ...]) -> bool:
    if len(expected) != len(given):
        # Keras adds or drops a last axis of length one.
        expected, given = (
            shape[:-1] if shape[-1:] == (1,) else shape for shape in (expected, given)
        )
    return len(expected) == len(given) and all(
        None in (a, b) or a == b for a, b in zip(expected, given, strict=True)
    )
