"""The model of parametric SupCon: class logits and projection of every view."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from supcon_tf.errors import check_integer
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


def parametric_model(
    encoder: keras.Model,
    *,
    image_shape: Sequence[int],
    num_classes: int,
    num_views: int = 2,
    projection: Sequence[int] = (2048, 128),
    batch_norm: bool = False,
    normalize_embedding: bool = False,
    zero_init_classifier: bool = False,
    projection_head: Callable[..., keras.Model] = projection_head,
    classification_head: Callable[..., keras.Model] = classification_head,
    name: str = "parametric_model",
) -> keras.Model:
    """Encoder, projection head and classifier for `losses.ParametricSupConLoss` (PaCo, GPaCo).

    Cui et al. 2021, arXiv 2107.12028. Both heads take the embedding of every view, and both train
    the encoder. The contrast set is the batch; `momentum_memory_model(..., parametric=True)` has
    the momentum encoder and the queue of the published methods.

    Args:
      encoder: any Keras model that maps one batch of samples to vectors [B, D].
      image_shape: shape of one sample, as in `contrastive_model`.
      num_classes: C, at least 2.
      num_views: V, views per sample.
      projection: layer sizes of the projection head; the last one is P.
      batch_norm: batch normalisation in the projection head.
      normalize_embedding: L2-normalise the embedding before both heads.
      zero_init_classifier: initialise the classifier's kernel with zeros.
      projection_head, classification_head: as in `contrastive_model`.
      name: name of the model.

    Returns:
      A model from float [B, V, *image_shape] to {"logits_and_projection": float32 [B, V, C + P],
      "logits": float32 [B, C], of view 0}.

    Raises:
      UserError: if the encoder does not map samples of `image_shape` to vectors, or an option is
        out of range.

    Example:
      >>> from supcon_tf import models
      >>> encoder = models.resnet(18, width=0.25, stem="cifar")
      >>> model = models.parametric_model(encoder, image_shape=(32, 32, 3), num_classes=10)
      >>> model.output["logits_and_projection"].shape
      (None, 2, 138)
    """
    image_shape = check_image_shape(image_shape)
    num_views = check_integer("num_views", num_views, at_least=1)
    embed = build_embedding(encoder, image_shape, normalize=normalize_embedding)
    dim = embed.output_shape[-1]
    head = build_head(
        "projection_head",
        projection_head,
        dim,
        units=check_units(projection),
        batch_norm=batch_norm,
    )
    classify = build_head(
        "classifier", classification_head, dim, num_classes, zero_init=zero_init_classifier
    )
    views = keras.Input((num_views, *image_shape), name="views")
    embedding = embed(fold_views(views))  # [B, V, ...] -> [B*V, D]
    projected = head(embedding)
    joined = ops.concatenate([classify(embedding), projected], axis=-1)
    joined = unfold_views(joined, num_views)  # [B*V, C + P] -> [B, V, C + P]
    outputs: dict[LossInput, Any] = {
        "logits_and_projection": joined,
        "logits": joined[:, 0, :num_classes],
    }
    return ReplicatedModel(views, outputs, name=name)
