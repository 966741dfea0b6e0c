"""An encoder with its heads: the model of contrastive training and the model that classifies.

Both hold the same parts under the same names, which survive a `.keras` round trip: "embedding"
(images to vectors, with the user's encoder inside), "projection_head" and "classifier".
"""

from collections.abc import Sequence

import keras
from keras import layers, ops

from supcon_tf.errors import UserError
from supcon_tf.models.distributed import ReplicatedModel
from supcon_tf.models.heads import L2Normalization, classification_head, projection_head
from supcon_tf.models.large_margin_head import LargeMarginHead


def contrastive_model(
    encoder: keras.Model,
    *,
    image_shape: tuple[int, int, int],
    num_views: int = 2,
    projection: Sequence[int] = (2048, 128),
    batch_norm: bool = False,
    normalize_embedding: bool = True,
    num_classes: int | None = None,
    zero_init_classifier: bool = False,
    stop_classifier_gradient: bool = True,
    name: str = "contrastive_model",
) -> keras.Model:
    """Encoder and projection head over several views of each image.

    z = head(e), e = encoder(x) (/ ||encoder(x)||), Khosla et al. 2020, arXiv 2004.11362. The views
    are folded into the batch, so that the encoder and its batch normalisation see all of them at
    once. With `num_classes` a linear classifier trains along on view 0's embedding, behind a
    stopped gradient: it measures the encoder and does not change it. Joint training by both losses
    lets that gradient through.

    Args:
      encoder: any Keras model from images to vectors.
      image_shape: height and width in pixels, and channels, all known.
      num_views: views per image, V.
      projection: units of the projection head's layers.
      batch_norm: batch normalisation in the projection head.
      normalize_embedding: scale the embedding to unit length before both heads.
      num_classes: classes of the linear classifier; None for no classifier.
      zero_init_classifier: start the classifier's kernel from zeros.
      stop_classifier_gradient: False trains the encoder by the classifier's loss too.
      name: of the model.

    Returns:
      A model from float [B, V, H, W, C] to the projection, float32 [B, V, projection[-1]], or with
      `num_classes` to {"projection": that, "logits": float32 [B, num_classes]}.

    Raises:
      UserError: if the encoder does not give vectors, `image_shape` has unknowns, or
        `num_views` < 1.

    Example:
      >>> from supcon_tf import models
      >>> encoder = models.resnet(18, width=0.25, stem="cifar")
      >>> models.contrastive_model(encoder, image_shape=(32, 32, 3)).output_shape
      (None, 2, 128)
    """
    if num_views < 1:
        raise UserError(f"num_views must be >= 1, got {num_views}")
    embed = _embedding(encoder, image_shape, normalize=normalize_embedding)
    dim = embed.output_shape[-1]
    head = projection_head(dim, units=projection, batch_norm=batch_norm)

    views = keras.Input((num_views, *image_shape), name="views")
    images = ops.reshape(views, (-1, *image_shape))  # [B, V, H, W, C] -> [B*V, H, W, C]
    embedding = embed(images)  # [B*V, D]
    projected = ops.reshape(head(embedding), (-1, num_views, projection[-1]))  # -> [B, V, P]
    if num_classes is None:
        return ReplicatedModel(views, projected, name=name)

    classify = classification_head(dim, num_classes, zero_init=zero_init_classifier)
    first_view = ops.reshape(embedding, (-1, num_views, dim))[:, 0]  # [B*V, D] -> [B, D]
    logits = classify(ops.stop_gradient(first_view) if stop_classifier_gradient else first_view)
    return ReplicatedModel(views, {"projection": projected, "logits": logits}, name=name)


def classification_model(
    encoder: keras.Model,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    normalize_embedding: bool = False,
    train_encoder: bool = True,
    zero_init: bool = False,
    large_margin: bool = False,
    name: str = "classification_model",
) -> keras.Model:
    """Encoder and linear classifier, for cross-entropy training, linear evaluation and fine-tuning.

    Args:
      encoder: any Keras model from images to vectors. It is used, not copied: `train_encoder`
        freezes it or, if an earlier stage froze all of it, thaws it.
      image_shape: height and width in pixels, and channels, all known.
      num_classes: number of logits.
      normalize_embedding: scale the embedding to unit length before the classifier.
      train_encoder: False runs the encoder in inference mode (fixed batch statistics, no dropout)
        and computes no gradient through it.
      zero_init: start the classifier's kernel from zeros.
      large_margin: a `LargeMarginHead` as classifier, for `losses.LargeMarginSoftmaxLoss`.
      name: of the model.

    Returns:
      A model from float [B, H, W, C] to {"logits": float32 [B, num_classes]}, or with
      `large_margin` [B, num_classes, 2], whose scores `models.class_scores` takes out.

    Raises:
      UserError: if the encoder does not give vectors, `image_shape` has unknowns, or a
        `large_margin` classifier would start from zeros, which have no angles.

    Example:
      >>> from supcon_tf import models
      >>> encoder = models.resnet(18, width=0.25, stem="cifar")
      >>> model = models.classification_model(
      ...     encoder, image_shape=(32, 32, 3), num_classes=10, train_encoder=False)
      >>> [variable.path for variable in model.trainable_variables]
      ['classifier/kernel', 'classifier/bias']
    """
    if large_margin and zero_init:
        raise UserError("zero_init must be False with large_margin, got True: zeros have no angle")
    if not train_encoder or not encoder.trainable_variables:
        # Twice: Keras does not pass on to the layers a value that the model itself already has.
        encoder.trainable = not train_encoder
        encoder.trainable = train_encoder
    embed = _embedding(
        encoder if train_encoder else FrozenEncoder(encoder, name="frozen_encoder"),
        image_shape,
        normalize=normalize_embedding,
    )
    if large_margin:
        classify = LargeMarginHead(num_classes, name="classifier")
    else:
        classify = classification_head(embed.output_shape[-1], num_classes, zero_init=zero_init)
    images = keras.Input(image_shape, name="images")
    return ReplicatedModel(images, {"logits": classify(embed(images))}, name=name)


def embedding_model(model: keras.Model) -> keras.Model:
    """The part of a contrastive or classification model that its heads stand on.

    Args:
      model: from `contrastive_model` or `classification_model`, also when loaded from a file.

    Returns:
      A model from float [B, H, W, C] to float32 [B, D], of unit length if `model` normalises;
      it shares its weights with `model`, and gradients flow also where `model` stops them.

    Example:
      >>> from supcon_tf import models
      >>> encoder = models.resnet(18, width=0.25, stem="cifar")
      >>> model = models.contrastive_model(encoder, image_shape=(32, 32, 3))
      >>> models.embedding_model(model).output_shape
      (None, 128)
    """
    embedding = model.get_layer("embedding")
    _, encoder, final = embedding.layers
    if not isinstance(encoder, FrozenEncoder):
        return embedding
    images = embedding.input
    return keras.Model(images, final(encoder.layer(images)), name="embedding")


def model_parts(model: keras.Model) -> dict[str, keras.Model]:
    """The trainable parts of a contrastive or classification model.

    Args:
      model: from `contrastive_model` or `classification_model`, also when loaded from a file.

    Returns:
      {"encoder": the user's encoder, "projection_head": ..., "prototypes": ..., "classifier":
      ...}, as far as `model` has them.

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

    A wrapper, because a `training=False` given while a functional model is built does not hold:
    Keras replaces it by the value of the outer call.
    """

    def call(self, images):
        return ops.stop_gradient(self.layer(images, training=False))


def _embedding(
    encoder: layers.Layer, image_shape: tuple[int, int, int], *, normalize: bool
) -> keras.Model:
    if len(image_shape) != 3 or None in image_shape:
        raise UserError(f"image_shape must be a known (height, width, channels), got {image_shape}")
    images = keras.Input(image_shape, name="images")
    features = encoder(images)
    if not isinstance(features, keras.KerasTensor) or len(features.shape) != 2:
        raise UserError(
            "encoder must map images to vectors [B, D] (end it with a global pool), "
            f"got {encoder.name} with output {features}"
        )
    if normalize:
        final = L2Normalization(name="normalize")
    else:
        final = layers.Activation("linear", dtype="float32", name="float32")
    return keras.Model(images, final(features), name="embedding")
