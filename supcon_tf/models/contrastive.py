"""Models of an encoder and its heads: contrastive training and classification.

Every model has its parts under the same layer names, which a `.keras` file keeps: "embedding" (the
user's encoder, then normalisation), "projection_head" and "classifier".
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from supcon_tf.errors import UserError, check_flag, check_integer
from supcon_tf.losses import LossInput
from supcon_tf.models.distributed import ReplicatedModel
from supcon_tf.models.embedding import (
    build_embedding,
    check_image_shape,
    fold_views,
    unfold_views,
)
from supcon_tf.models.heads import (
    build_head,
    check_units,
    classification_head,
    projection_head,
)
from supcon_tf.models.large_margin_head import LargeMarginHead


def contrastive_model(
    encoder: keras.Model,
    *,
    image_shape: Sequence[int],
    num_views: int = 2,
    projection: Sequence[int] = (2048, 128),
    batch_norm: bool = False,
    normalize_embedding: bool = True,
    num_classes: int | None = None,
    zero_init_classifier: bool = False,
    stop_classifier_gradient: bool = True,
    projection_head: Callable[..., keras.Model] = projection_head,
    classification_head: Callable[..., keras.layers.Layer] = classification_head,
    name: str = "contrastive_model",
) -> keras.Model:
    """Encoder and projection head over several views of each sample.

    z = head(e), e = encoder(x) (/ ||encoder(x)||), Khosla et al. 2020, arXiv 2004.11362. The views
    are folded into the batch axis: the encoder and its batch normalisation see all views of a batch
    in one call. With `num_classes`, a linear probe trains on the embedding of view 0. A stopped
    gradient keeps it from changing the encoder; `stop_classifier_gradient=False` trains the encoder
    on both losses.

    Args:
      encoder: any Keras model that maps one batch of samples to vectors [B, D].
      image_shape: shape of one sample: (height, width, channels) in pixels, with any number of
        channels, or (steps, features) or (features,) for an encoder of series or vectors.
      num_views: V, views per sample.
      projection: layer sizes of the projection head; the last one is P.
      batch_norm: batch normalisation in the projection head.
      normalize_embedding: L2-normalise the embedding before both heads.
      num_classes: C, classes of the linear probe; None for no probe.
      zero_init_classifier: initialise the probe's kernel with zeros.
      stop_classifier_gradient: stop the gradient between the encoder and the probe.
      projection_head: input length, units, batch_norm -> the head; `models.projection_head` with
        other options, such as `functools.partial(models.projection_head, last_bias=True)`.
      classification_head: input length, number of classes, zero_init -> the probe, in the same way;
        or `models.balanced_classifier`.
      name: name of the model.

    Returns:
      A model from float [B, V, *image_shape] to the projection, float32 [B, V, P]; with
      `num_classes` to {"projection": float32 [B, V, P], "logits": float32 [B, C]}.

    Raises:
      UserError: if the encoder does not map samples of `image_shape` to vectors, or an option is
        out of range.

    Example:
      >>> from supcon_tf import models
      >>> encoder = models.resnet(18, width=0.25, stem="cifar")
      >>> models.contrastive_model(encoder, image_shape=(32, 32, 3)).output_shape
      (None, 2, 128)
    """
    image_shape = check_image_shape(image_shape)
    num_views = check_integer("num_views", num_views, at_least=1)
    projection = check_units(projection)
    for option, value in (
        ("zero_init_classifier", zero_init_classifier),
        ("stop_classifier_gradient", stop_classifier_gradient),
    ):
        check_flag(option, value)
    embed = build_embedding(encoder, image_shape, normalize=normalize_embedding)
    dim = embed.output_shape[-1]
    head = build_head(
        "projection_head", projection_head, dim, units=projection, batch_norm=batch_norm
    )

    views = keras.Input((num_views, *image_shape), name="views")
    embedding = embed(fold_views(views))  # [B, V, ...] -> [B*V, D]
    projected = unfold_views(head(embedding), num_views)  # [B*V, P] -> [B, V, P]
    if num_classes is None:
        return ReplicatedModel(views, projected, name=name)

    classify = build_head(
        "classifier", classification_head, dim, num_classes, zero_init=zero_init_classifier
    )
    first_view = unfold_views(embedding, num_views)[:, 0]  # [B*V, D] -> [B, D]
    logits = classify(ops.stop_gradient(first_view) if stop_classifier_gradient else first_view)
    outputs: dict[LossInput, Any] = {"projection": projected, "logits": logits}
    return ReplicatedModel(views, outputs, name=name)


def classification_model(
    encoder: keras.Model,
    *,
    image_shape: Sequence[int],
    num_classes: int,
    normalize_embedding: bool = False,
    train_encoder: bool = True,
    zero_init: bool = False,
    large_margin: bool = False,
    classification_head: Callable[..., keras.Model] = classification_head,
    name: str = "classification_model",
) -> keras.Model:
    """Encoder and linear classifier, for cross-entropy training, linear evaluation and fine-tuning.

    Args:
      encoder: any Keras model that maps one batch of samples to vectors [B, D]. It is used, not
        copied: `train_encoder` sets its `trainable` to False, or to True if all of it was frozen.
      image_shape: shape of one sample, as in `contrastive_model`.
      num_classes: C, at least 2.
      normalize_embedding: L2-normalise the embedding before the classifier.
      train_encoder: False runs the encoder in inference mode (moving batch statistics, no dropout)
        and without a gradient.
      zero_init: initialise the classifier's kernel with zeros.
      large_margin: use a `LargeMarginHead`, for `losses.LargeMarginSoftmaxLoss`.
      classification_head: as in `contrastive_model`; not used with `large_margin`.
      name: name of the model.

    Returns:
      A model from float [B, *image_shape] to {"logits": float32 [B, C]}; with `large_margin` the
      logits are [B, C, 2], and `models.class_scores` returns their [B, C] scores.

    Raises:
      UserError: if the encoder does not map samples of `image_shape` to vectors, `num_classes` is
        below 2, or `large_margin` is combined with `zero_init`: zero vectors have no angle.

    Example:
      >>> from supcon_tf import models
      >>> encoder = models.resnet(18, width=0.25, stem="cifar")
      >>> model = models.classification_model(
      ...     encoder, image_shape=(32, 32, 3), num_classes=10, train_encoder=False)
      >>> [variable.path for variable in model.trainable_variables]
      ['classifier/kernel', 'classifier/bias']
    """
    image_shape = check_image_shape(image_shape)
    check_flag("train_encoder", train_encoder)
    check_flag("zero_init", zero_init)
    check_flag("large_margin", large_margin)
    if large_margin and zero_init:
        raise UserError("zero_init must be False with large_margin, got True: zeros have no angle")
    embed = build_embedding(
        encoder, image_shape, normalize=normalize_embedding, frozen=not train_encoder
    )
    if not train_encoder or not encoder.trainable_variables:
        # Set twice: Keras does not pass a value on to the layers if the model already has it.
        encoder.trainable = not train_encoder
        encoder.trainable = train_encoder
    if large_margin:
        classify = LargeMarginHead(num_classes, name="classifier")
    else:
        dim = embed.output_shape[-1]
        classify = build_head(
            "classifier", classification_head, dim, num_classes, zero_init=zero_init
        )
    images = keras.Input(image_shape, name="images")
    outputs: dict[LossInput, Any] = {"logits": classify(embed(images))}
    return ReplicatedModel(images, outputs, name=name)
