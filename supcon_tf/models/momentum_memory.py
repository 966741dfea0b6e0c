"""SupCon with memory: keys of a momentum encoder that wait in a queue with their labels.

He et al. 2020, "Momentum Contrast", arXiv 1911.05722, with the labels of Khosla et al. 2020, arXiv
2004.11362. The first views of an image are queries, projected by the encoder that trains; the
others are keys, projected by an encoder whose weights follow with a momentum. A query's contrast
set are the keys of the global batch and those of the steps before, which a queue keeps; the keys
of its class are its positives. A key is never the view that the query is made of.

The state moves within the layers' and the loss's own calls, so that `fit` needs no other training
step, and all of it is in `model.variables`:

- weights, k <- k + (1 - m) (q - k), as the keys of a training step are made. The optimizer's step
  before has moved q, so the keys are those of an update after each step;
- queue, as the loss of a training step is taken, after it has read the queue.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from supcon_tf.errors import UserError
from supcon_tf.models.contrastive import contrastive_model, embedding_model, model_parts
from supcon_tf.models.distributed import ReplicatedModel
from supcon_tf.models.momentum_encoder import MomentumProjection
from supcon_tf.models.momentum_queue import Contrast, KeyMemory


def momentum_memory_model(
    encoder: keras.Model,
    *,
    image_shape: tuple[int, int, int],
    num_views: int = 2,
    num_queries: int = 1,
    projection: Sequence[int] = (2048, 128),
    batch_norm: bool = False,
    normalize_embedding: bool = True,
    num_classes: int | None = None,
    zero_init_classifier: bool = False,
    memory_size: int = 8192,
    momentum: float = 0.999,
    contrast: Contrast = "batch_and_queue",
    name: str = "momentum_memory_model",
) -> keras.Model:
    """Encoder and head over queries, their moving averages over keys, and the queue of keys.

    Train it with `MemoryLoss`; for embeddings it is a `contrastive_model` (`embedding_model` and
    `model_parts` give the encoder that trains). The keys' batch normalisation runs on their own
    batch in training, as MoCo's does, over all replicas, without MoCo's shuffling between them.
    Only weights follow with the momentum: batch statistics for inference are the keys' own.

    The queue takes 4 memory_size projection[-1] bytes: 8,192 keys of 128 numbers are 4 MiB, and
    their labels 64 KiB.

    Args:
      encoder: any Keras model from images to vectors. Keys begin with the weights that it has now.
      image_shape, projection, batch_norm, normalize_embedding, num_classes, zero_init_classifier:
        as in `contrastive_model`.
      num_views: views per image, V.
      num_queries: Q, how many of them are queries, the first ones; the others are keys.
      memory_size: keys in the queue.
      momentum: m of the weights, MoCo's 0.999.
      contrast: "batch_and_queue", the keys of this batch and the queue's, or "queue" alone.
      name: of the model.

    Returns:
      A model from float [B, V, H, W, C] to the projection, float32 [B, V, projection[-1]], first
      of the Q queries and then of the keys, without a gradient; with `num_classes` to
      {"projection": that, "logits": float32 [B, num_classes]}.

    Raises:
      UserError: an option that is not as described, or as in `contrastive_model`.

    Example:
      >>> from supcon_tf import models
      >>> from supcon_tf.models import momentum_memory_model
      >>> encoder = models.resnet(18, width=0.25, stem="cifar")
      >>> model = momentum_memory_model(encoder, image_shape=(32, 32, 3), memory_size=1024)
      >>> model.output_shape, tuple(model.get_layer("memory").keys.shape)
      ((None, 2, 128), (1024, 128))
    """
    if not 1 <= num_queries < num_views:
        raise UserError(
            f"num_queries must be in 1 ... num_views - 1, got {num_queries} of {num_views} views"
        )
    parts = contrastive_model(
        encoder,
        image_shape=image_shape,
        num_views=num_queries,
        projection=projection,
        batch_norm=batch_norm,
        normalize_embedding=normalize_embedding,
        num_classes=num_classes,
        zero_init_classifier=zero_init_classifier,
    )
    embed, head = embedding_model(parts), model_parts(parts)["projection_head"]
    momentum_projection = MomentumProjection([embed, head], momentum=momentum, name="key_encoder")
    memory = KeyMemory(memory_size, num_queries=num_queries, contrast=contrast, name="memory")

    views = keras.Input((num_views, *image_shape), name="views")
    embedding = embed(_folded(views[:, :num_queries]))  # [B*Q, D]
    keys = momentum_projection(_folded(views[:, num_queries:]))  # [B*K, P]
    projected = ops.concatenate(
        [
            ops.reshape(head(embedding), (-1, num_queries, projection[-1])),
            ops.reshape(keys, (-1, num_views - num_queries, projection[-1])),
        ],
        axis=1,
    )
    projected = memory(projected)  # [B, V, P]
    if num_classes is None:
        return ReplicatedModel(views, projected, name=name)
    first_view = ops.reshape(embedding, (-1, num_queries, embedding.shape[-1]))[:, 0]
    logits = model_parts(parts)["classifier"](ops.stop_gradient(first_view))
    return ReplicatedModel(views, {"projection": projected, "logits": logits}, name=name)


def find_memory(model: keras.Model) -> KeyMemory | None:
    """The queue of a `momentum_memory_model`; None for a model without one."""
    return next((layer for layer in model.layers if isinstance(layer, KeyMemory)), None)


def _folded(views: Any) -> Any:
    """[B, V, H, W, C] -> [B*V, H, W, C]."""
    return ops.reshape(views, (-1, *views.shape[2:]))
