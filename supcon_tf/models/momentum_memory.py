"""SupCon with a memory: keys of a momentum encoder in a queue with their labels.

He et al. 2020, "Momentum Contrast", arXiv 1911.05722, with the labels of Khosla et al. 2020, arXiv
2004.11362. The first views of a sample are queries: the trained encoder projects them. The other
views are keys: a momentum encoder projects them. The contrast set of a query is the keys of the
global batch and the keys of earlier steps, which a queue holds. Its positives are the keys of its
class. A key is never made from the same view as the query.

With `parametric` it is the model of PaCo and GPaCo (Cui et al. 2021, 2023, arXiv 2107.12028,
2209.12400): every query also has class logits, which share its softmax with the keys.

Calls of the layers and of the loss update all state, so `fit` needs no other training step,
and `model.variables` holds all of it:

- The key encoder's weights change when a training step computes its keys,
  k <- k + (1 - m) (q - k). They use q as the last optimizer step left it, so the keys are the same
  as with an update after each step.
- The queue changes when the loss of a training step has been computed from it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from supcon_tf.errors import UserError, check_flag, check_integer
from supcon_tf.losses import LossInput
from supcon_tf.models.contrastive import contrastive_model
from supcon_tf.models.distributed import ReplicatedModel
from supcon_tf.models.embedding import embedding_model, fold_views, model_parts, unfold_views
from supcon_tf.models.heads import classification_head, projection_head
from supcon_tf.models.momentum_encoder import MomentumProjection
from supcon_tf.models.momentum_queue import Contrast, KeyMemory


def momentum_memory_model(
    encoder: keras.Model,
    *,
    image_shape: Sequence[int],
    num_views: int = 2,
    num_queries: int = 1,
    projection: Sequence[int] = (2048, 128),
    batch_norm: bool = False,
    normalize_embedding: bool = True,
    num_classes: int | None = None,
    zero_init_classifier: bool = False,
    stop_classifier_gradient: bool = True,
    memory_size: int = 8192,
    momentum: float = 0.999,
    contrast: Contrast = "batch_and_queue",
    parametric: bool = False,
    projection_head: Callable[..., keras.Model] = projection_head,
    classification_head: Callable[..., keras.Model] = classification_head,
    name: str = "momentum_memory_model",
) -> keras.Model:
    """Encoder and head over queries, a momentum encoder over keys, and the queue of keys.

    Train it with `MemoryLoss`. `embedding_model` and `model_parts` return the trained encoder, as
    for a `contrastive_model`. In training, batch normalisation of the keys uses the keys' own batch
    statistics over all replicas, as MoCo does, without MoCo's shuffling between them. Momentum
    applies to weights only; the moving batch statistics come from the keys.

    The queue takes 4 memory_size projection[-1] bytes: 4 MiB for 8,192 keys of 128 numbers, and
    64 KiB for their labels.

    Args:
      encoder: any Keras model that maps one batch of samples to vectors [B, D]. The key encoder is
        initialised with its current weights.
      image_shape, projection, batch_norm, normalize_embedding, num_classes, zero_init_classifier,
        stop_classifier_gradient, projection_head, classification_head: as in `contrastive_model`.
      num_views: V, views per sample.
      num_queries: Q, how many of them are queries; the other V - Q are keys.
      memory_size: number of keys in the queue.
      momentum: m, momentum of the weights, 0.999 in MoCo.
      contrast: "batch_and_queue" (keys of this batch and of the queue) or "queue" alone.
      parametric: for `losses.ParametricSupConLoss`, which trains the classifier too; needs
        `num_classes`.
      name: name of the model.

    Returns:
      A model from float [B, V, *image_shape] to the projection, float32 [B, V, P], of the Q queries
      and then of the keys, which have no gradient; with `num_classes` to {"projection": float32
      [B, V, P], "logits": float32 [B, C]}; with `parametric` to {"logits_and_projection": float32
      [B, V, C + P], "logits": float32 [B, C]}, where the logits of keys are 0.

    Raises:
      UserError: if an option is out of range, or as in `contrastive_model`.

    Example:
      >>> from supcon_tf import models
      >>> from supcon_tf.models import momentum_memory_model
      >>> encoder = models.resnet(18, width=0.25, stem="cifar")
      >>> model = momentum_memory_model(encoder, image_shape=(32, 32, 3), memory_size=1024)
      >>> model.output_shape, tuple(model.get_layer("memory").keys.shape)
      ((None, 2, 128), (1024, 128))
    """
    num_views = check_integer("num_views", num_views, at_least=2)
    num_queries = check_integer("num_queries", num_queries, at_least=1)
    if num_queries >= num_views:
        raise UserError(
            f"num_queries must be below num_views = {num_views}, got {num_queries}: the other "
            "views are keys"
        )
    check_flag("parametric", parametric)
    if parametric and num_classes is None:
        raise UserError("parametric needs num_classes, the number of logits, got None")
    parts = contrastive_model(
        encoder,
        image_shape=image_shape,
        num_views=num_queries,
        projection=projection,
        batch_norm=batch_norm,
        normalize_embedding=normalize_embedding,
        num_classes=num_classes,
        zero_init_classifier=zero_init_classifier,
        projection_head=projection_head,
        classification_head=classification_head,
    )
    embed, head = embedding_model(parts), model_parts(parts)["projection_head"]
    key_encoder = MomentumProjection([embed, head], momentum=momentum, name="key_encoder")
    memory = KeyMemory(memory_size, num_queries=num_queries, contrast=contrast, name="memory")

    views = keras.Input((num_views, *image_shape), name="views")
    embedding = embed(fold_views(views[:, :num_queries]))  # [B*Q, D]
    keys = key_encoder(fold_views(views[:, num_queries:]))  # [B*(V-Q), P]
    projected = ops.concatenate(
        [
            unfold_views(head(embedding), num_queries),  # [B, Q, P]
            unfold_views(keys, num_views - num_queries),  # [B, V-Q, P]
        ],
        axis=1,
    )
    projected = memory(projected)  # [B, V, P]
    if num_classes is None:
        return ReplicatedModel(views, projected, name=name)
    classify = model_parts(parts)["classifier"]
    if parametric:
        logits = unfold_views(classify(embedding), num_queries)  # [B*Q, C] -> [B, Q, C]
        of_views = ops.pad(logits, [(0, 0), (0, num_views - num_queries), (0, 0)])
        joined = ops.concatenate([of_views, projected], axis=-1)
        joint: dict[LossInput, Any] = {"logits_and_projection": joined, "logits": logits[:, 0]}
        return ReplicatedModel(views, joint, name=name)
    first_view = unfold_views(embedding, num_queries)[:, 0]  # [B*Q, D] -> [B, D]
    if stop_classifier_gradient:
        first_view = ops.stop_gradient(first_view)
    outputs: dict[LossInput, Any] = {"projection": projected, "logits": classify(first_view)}
    return ReplicatedModel(views, outputs, name=name)


def find_memory(model: keras.Model) -> KeyMemory | None:
    """Returns the queue of a `momentum_memory_model`, or None for another model."""
    return next((layer for layer in model.layers if isinstance(layer, KeyMemory)), None)
