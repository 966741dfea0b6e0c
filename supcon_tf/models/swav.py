"""SwAV's model: crops of several sizes, prototypes, and a queue of projections.

Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
arXiv 2006.09882. All state is in variables of the model, so a checkpoint holds it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from supcon_tf import distribution
from supcon_tf.data.multi_crop import CropGroup, check_crops, group_name
from supcon_tf.errors import UserError, check_flag, check_integer, check_number
from supcon_tf.losses import LossInput, sinkhorn_knopp
from supcon_tf.models.distributed import ReplicatedModel
from supcon_tf.models.embedding import (
    build_embedding,
    check_image_shape,
    fold_views,
    unfold_views,
)
from supcon_tf.models.heads import build_head, check_units, classification_head, projection_head


@keras.saving.register_keras_serializable(package="supcon_tf")
class Prototypes(layers.Layer):
    """Scores of projections for K prototypes, and the codes of the assigned crops.

    A score is the product of a projection and a prototype, both of unit length; the kernel is
    normalised after each step of the optimizer. `sinkhorn_knopp` computes the codes over the global
    batch, one crop at a time. Once the queue is full, its projections also take part in the
    computation.

    Maps unit vectors [B, V, D] to float32 [B, A + V, K]: the codes of the assigned crops, without a
    gradient, then the scores of all crops, as `losses.SwAVLoss` takes them.

    Args:
      num_prototypes: K.
      num_assigned: A, the first A crops of each sample get codes.
      epsilon, rounds: as in `sinkhorn_knopp`.
      frozen_steps: number of initial training steps that do not train the prototypes.
      queue_length: projections per assigned crop in the queue; 0 for no queue.
      queue_from_step: first training step whose projections enter the queue.
      **kwargs: arguments of a Keras layer.

    Raises:
      UserError: if an option is out of range.

    Example:
      >>> import keras
      >>> from supcon_tf.models import Prototypes
      >>> Prototypes(30)(keras.ops.ones((4, 8, 16)) / 4).shape
      TensorShape([4, 10, 30])
    """

    def __init__(
        self,
        num_prototypes: int,
        *,
        num_assigned: int = 2,
        epsilon: float = 0.05,
        rounds: int = 3,
        frozen_steps: int = 0,
        queue_length: int = 0,
        queue_from_step: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.options: dict[str, Any] = {
            name: check_integer(name, value, at_least=at_least)
            for name, value, at_least in (
                ("num_prototypes", num_prototypes, 1),
                ("num_assigned", num_assigned, 1),
                ("rounds", rounds, 1),
                ("frozen_steps", frozen_steps, 0),
                ("queue_length", queue_length, 0),
                ("queue_from_step", queue_from_step, 0),
            )
        }
        check_number("epsilon", epsilon, above=0)
        self.options["epsilon"] = epsilon

    def build(self, input_shape: Any) -> None:
        dim = input_shape[-1]
        unit_columns = keras.constraints.UnitNorm(axis=0)
        glorot_uniform = keras.initializers.GlorotUniform()
        self.kernel = self.add_weight(
            name="kernel",
            shape=(dim, self.options["num_prototypes"]),
            initializer=lambda shape, dtype=None: unit_columns(glorot_uniform(shape, dtype)),
            constraint=unit_columns,
        )

        def state(name: str, shape: tuple[int, ...], dtype: str) -> keras.Variable:
            return self.add_weight(
                name=name,
                shape=shape,
                dtype=dtype,
                initializer="zeros",
                trainable=False,
                # Every replica writes the gathered projections of all replicas.
                aggregation="only_first_replica",
            )

        self.step = state("step", (), "int64")
        if self.options["queue_length"]:
            shape = (self.options["queue_length"], self.options["num_assigned"], dim)
            self.queue = state("queue", shape, "float32")
            self.queued = state("queued", (), "int64")

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        kernel = tf.convert_to_tensor(self.kernel)
        step = tf.convert_to_tensor(self.step)
        if training:
            is_frozen = step < self.options["frozen_steps"]
            kernel = tf.where(is_frozen, tf.stop_gradient(kernel), kernel)
        scores = tf.einsum("bvd,dk->bvk", inputs, kernel)
        assigned = tf.stop_gradient(inputs[:, : self.options["num_assigned"]])
        codes = self._codes(scores, tf.stop_gradient(kernel))
        if training:
            if self.options["queue_length"]:
                self._push(assigned, step)
            self.step.assign(step + 1)
        return tf.concat([codes, scores], axis=1)

    def _codes(self, scores: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Scores [B, V, K] -> codes [B, A, K]."""
        options = {name: self.options[name] for name in ("epsilon", "rounds")}
        if self.options["queue_length"]:
            is_full = tf.convert_to_tensor(self.queued) >= self.options["queue_length"]
            queue = tf.convert_to_tensor(self.queue)
        codes = []
        for crop in range(self.options["num_assigned"]):
            if self.options["queue_length"]:
                options["queue_scores"] = tf.matmul(queue[:, crop], kernel)
                options["use_queue"] = is_full
            codes.append(sinkhorn_knopp(scores[:, crop], **options))
        return tf.stack(codes, axis=1)

    def _push(self, assigned: tf.Tensor, step: tf.Tensor) -> None:
        """Puts projections [B, A, D] in front of the queue and drops the oldest."""
        new = distribution.gather(assigned)
        has_started = step >= self.options["queue_from_step"]
        queue = tf.convert_to_tensor(self.queue)
        pushed = tf.concat([new, queue], axis=0)[: self.options["queue_length"]]
        self.queue.assign(tf.ensure_shape(tf.where(has_started, pushed, queue), self.queue.shape))
        added = tf.where(has_started, tf.shape(new, tf.int64)[0], tf.constant(0, tf.int64))
        self.queued.assign(tf.convert_to_tensor(self.queued) + added)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        samples, crops, _ = input_shape
        return samples, self.options["num_assigned"] + crops, self.options["num_prototypes"]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.options}


def swav_model(
    encoder: keras.Model,
    *,
    image_shape: Sequence[int],
    num_classes: int | None = None,
    crops: Sequence[CropGroup] = ((224, 2, (0.14, 1.0)), (96, 6, (0.05, 0.14))),
    projection: Sequence[int] = (2048, 128),
    batch_norm: bool = True,
    normalize_embedding: bool = False,
    zero_init_classifier: bool = False,
    stop_classifier_gradient: bool = True,
    num_prototypes: int = 3000,
    epsilon: float = 0.05,
    rounds: int = 3,
    frozen_steps: int = 0,
    queue_length: int = 0,
    queue_from_step: int = 0,
    projection_head: Callable[..., keras.Model] = projection_head,
    classification_head: Callable[..., keras.Model] = classification_head,
    name: str = "swav_model",
) -> keras.Model:
    """Encoder, projection head and prototypes over groups of crops of several sizes.

    The encoder runs once per group, because each group has its own crop size; the head runs once
    over all projections. The crops of the first group get codes. Train it with `losses.SwAVLoss` on
    "prototypes", optionally with a second loss on "projection".

    Args:
      encoder: any Keras model that maps images of any size to vectors, as `models.resnet`.
      image_shape: (height, width, channels) of a crop of the first group and of evaluation.
      num_classes: C, classes of a linear probe on the first crop; None for no probe.
      crops: (side in pixels, number of crops, range of areas) of each group, as in
        `data.multi_crop.batches`; the ranges of areas are not used here.
      projection, batch_norm, normalize_embedding, zero_init_classifier,
        stop_classifier_gradient, projection_head, classification_head: as in
        `models.contrastive_model`.
      num_prototypes, epsilon, rounds, frozen_steps, queue_length, queue_from_step: as in
        `Prototypes`.
      name: name of the model.

    Returns:
      A model from {"crops224": float [B, 2, 224, 224, 3], ...} to {"prototypes": float32
      [B, A + V, K] as from `Prototypes`, "projection": float32 [B, A, P] of the A crops of the
      first group, "logits": float32 [B, C]}.

    Raises:
      UserError: if the first group's crops are not as large as the images, the encoder takes images
        of one size only, or an option is out of range.

    Example:
      >>> from supcon_tf import models
      >>> from supcon_tf.models import swav_model
      >>> encoder = models.resnet(18, width=0.25, stem="cifar")
      >>> model = swav_model(
      ...     encoder, image_shape=(32, 32, 3), num_classes=10, num_prototypes=30,
      ...     crops=((32, 2, (0.3, 1.0)), (16, 4, (0.1, 0.3))))
      >>> model.output["prototypes"].shape, model.output["projection"].shape
      ((None, 8, 30), (None, 2, 128))
    """
    check_crops(crops)
    projection = check_units(projection)
    if len(image_shape := check_image_shape(image_shape)) != 3:
        raise UserError(f"image_shape must be (height, width, channels), got {image_shape}")
    height, width, channels = image_shape
    check_flag("zero_init_classifier", zero_init_classifier)
    check_flag("stop_classifier_gradient", stop_classifier_gradient)
    if not height == width == crops[0][0]:
        raise UserError(
            f"the first crops must be as large as the images, got {crops[0][0]} px and "
            f"{height} x {width} px: set views.Preprocessing.image_px = {crops[0][0]}"
        )
    _check_any_size(encoder)
    embed = build_embedding(encoder, (None, None, channels), normalize=normalize_embedding)
    dim = embed.output_shape[-1]
    head = build_head(
        "projection_head", projection_head, dim, units=projection, batch_norm=batch_norm
    )
    inputs = {
        group_name(group): keras.Input(
            (group[1], group[0], group[0], channels), name=group_name(group)
        )
        for group in crops
    }
    num_assigned, num_crops = crops[0][1], sum(count for _, count, _ in crops)
    embedding = ops.concatenate(
        # [B, v, H, W, C] -> [B*v, D] -> [B, v, D] of each group -> [B, V, D]
        [unfold_views(embed(fold_views(views)), views.shape[1]) for views in inputs.values()],
        axis=1,
    )
    projected = unfold_views(head(fold_views(embedding)), num_crops)  # [B, V, P]
    outputs: dict[LossInput, Any] = {
        "prototypes": Prototypes(
            num_prototypes,
            num_assigned=num_assigned,
            epsilon=epsilon,
            rounds=rounds,
            frozen_steps=frozen_steps,
            queue_length=queue_length,
            queue_from_step=queue_from_step,
            name="prototypes",
        )(projected),
        "projection": projected[:, :num_assigned],
    }
    if num_classes is not None:
        classify = build_head(
            "classifier", classification_head, dim, num_classes, zero_init=zero_init_classifier
        )
        first_view = embedding[:, 0]
        if stop_classifier_gradient:
            first_view = ops.stop_gradient(first_view)
        outputs["logits"] = classify(first_view)
    return ReplicatedModel(inputs, outputs, name=name)


def _check_any_size(encoder: keras.Model) -> None:
    for tensor in getattr(encoder, "inputs", None) or ():
        if any(size is not None for size in tensor.shape[1:3]):
            raise UserError(
                f"crops of several sizes need an encoder of images of any size, got {encoder.name} "
                f"of {tensor.shape[1:]}"
            )
