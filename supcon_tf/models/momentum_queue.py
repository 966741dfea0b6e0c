"""A queue of labelled keys, and the loss that reads and fills it."""

from typing import Any, Literal, get_args

import keras
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.errors import UserError, check_integer
from supcon_tf.losses import (
    ParametricSupConLoss,
    SimCLRLoss,
    SupConLoss,
    contrast_set_supcon_loss,
)
from supcon_tf.losses.base import PerSampleLoss
from supcon_tf.losses.labels import as_labels
from supcon_tf.losses.multiview import rescale_to_masked_mean, share_label
from supcon_tf.losses.parametric_supcon import contrast_set_parametric_loss

Contrast = Literal["queue", "batch_and_queue"]


@keras.saving.register_keras_serializable(package="supcon_tf")
class KeyMemory(keras.layers.Layer):
    """A queue of keys and their labels, newest last, the same on all replicas.

    The layer returns its input, projections float32 [B, V, P]; `MemoryLoss` reads and fills it.

    Args:
      size: number of keys; the oldest are dropped.
      num_queries: Q, the first Q views are queries, the others are keys.
      contrast: contrast set of a query, "queue" or "batch_and_queue".
      **kwargs: arguments of a Keras layer.

    Attributes:
      keys: float32 [size, P]. Only the last min(size, count) rows hold keys.
      labels: int64 [size], of the keys.
      count: int64, number of keys pushed so far.

    Raises:
      UserError: if an option is out of range.
    """

    def __init__(
        self,
        size: int,
        *,
        num_queries: int = 1,
        contrast: Contrast = "batch_and_queue",
        **kwargs,
    ):
        size = check_integer("memory_size", size, at_least=1)
        if contrast not in get_args(Contrast):
            raise UserError(f"contrast must be one of {get_args(Contrast)}, got {contrast!r}")
        super().__init__(**{"dtype": "float32", **kwargs})
        self.size = size
        self.num_queries = num_queries
        self.contrast = contrast
        self.is_training = False

    def build(self, input_shape: Any) -> None:
        def state(name: str, shape: tuple[int, ...], dtype: str) -> keras.Variable:
            return self.add_weight(
                shape=shape,
                dtype=dtype,
                initializer="zeros",
                trainable=False,
                # Every replica writes the keys of all replicas.
                aggregation="only_first_replica",
                name=name,
            )

        self.keys = state("keys", (self.size, input_shape[-1]), "float32")
        self.labels = state("labels", (self.size,), "int64")
        self.count = state("count", (), "int64")

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        # Keras does not pass `training` to losses; MemoryLoss fills the queue in training only.
        self.is_training = bool(training)
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    @property
    def num_bytes(self) -> int:
        """Memory of keys, labels and count."""
        return sum(
            variable.shape.num_elements() * variable.value.dtype.size for variable in self.weights
        )

    def is_filled(self) -> tf.Tensor:
        """Returns which rows hold a key: bool [size]."""
        newest_first = tf.range(self.size - 1, -1, -1, dtype=tf.int64)
        return newest_first < tf.convert_to_tensor(self.count)

    def push(self, keys: tf.Tensor, labels: tf.Tensor) -> None:
        """Appends keys float32 [n, P] with labels int64 [n] and drops the oldest."""
        for queue, new in ((self.keys, keys), (self.labels, labels)):
            newest = tf.concat([tf.convert_to_tensor(queue), new], axis=0)[-self.size :]
            queue.assign(tf.ensure_shape(newest, queue.shape))
        self.count.assign(tf.convert_to_tensor(self.count) + tf.shape(labels, out_type=tf.int64)[0])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "size": self.size,
            "num_queries": self.num_queries,
            "contrast": self.contrast,
        }


@keras.saving.register_keras_serializable(package="supcon_tf")
class MemoryLoss(PerSampleLoss):
    """Contrastive loss of queries against the keys of the batch and of the queue.

    `contrast_set_supcon_loss` with the options of `loss`. Queries without a positive are left out
    of the mean over the global batch. In a training step the keys of the global batch are then
    pushed into the queue. `y_true` is class numbers, int [N]. With `SimCLRLoss` labels are ignored
    and may be None; the positives of a query are the keys of its own image, as in MoCo. With
    `ParametricSupConLoss` the softmax is over a query's class logits and the keys (PaCo), and the
    mean is over all queries.

    Maps labels [N] and projections float32 [N, V, P], after C logits each for
    `ParametricSupConLoss`, to a scalar.

    Args:
      loss: a `SupConLoss`, `SimCLRLoss` or `ParametricSupConLoss` with the options. The
        implementation is dense, without positives_cap.
      memory: the model's queue, from `find_memory`. A loss that was loaded from a file has None:
        compile the loaded model with its own memory before more training.
      name: name of the loss. The reduction is taken from `loss`.

    Raises:
      UserError: for another loss or option, or SimCLR with the queue alone, where a query has no
        positive.

    Example:
      >>> import keras
      >>> import tensorflow as tf
      >>> from supcon_tf import losses, models
      >>> encoder = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
      >>> model = models.momentum_memory_model(encoder, image_shape=(8, 8, 3), memory_size=64)
      >>> memory = models.find_memory(model)
      >>> model.compile("sgd", models.MemoryLoss(losses.SupConLoss(), memory), jit_compile=False)
      >>> images, labels = tf.random.normal([16, 2, 8, 8, 3]), tf.range(16) % 4
      >>> history = model.fit(images, labels, batch_size=8, verbose=0)
      >>> int(memory.count)
      16
    """

    def __init__(
        self,
        loss: Any,
        memory: KeyMemory | None = None,
        *,
        name: str = "memory_loss",
    ):
        if not isinstance(loss, SupConLoss | SimCLRLoss | ParametricSupConLoss):
            raise UserError(
                "a memory takes a SupConLoss, a SimCLRLoss or a ParametricSupConLoss, got "
                f'{type(loss).__name__}; SINCERE is SupConLoss(denominator="one_positive")'
            )
        if isinstance(loss, SimCLRLoss) and memory is not None and memory.contrast == "queue":
            raise UserError(
                "SimCLRLoss with a memory has its positives in the batch, got contrast = 'queue': "
                "set it to 'batch_and_queue'"
            )
        options = dict(loss.options)
        for option, wanted in (
            ("positives_cap", (None,)),
            ("multi_label", ("any",)),
            ("contrast_gradient", (True, False)),  # Keys never have a gradient.
            ("implementation", ("auto", "dense")),
        ):
            given = options.pop(option, wanted[0])
            if given not in wanted:
                raise UserError(f"{option} must be {wanted[-1]!r} with a memory, got {given!r}")
        super().__init__(name=name, reduction=loss.reduction)
        self.loss = loss
        self.input = loss.input
        self.memory = memory
        self._anchors = options.pop("anchors", "all_views")
        self._options = options

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """Returns float32 [N] values whose mean is the mean over samples with a positive."""
        memory = self.memory
        if memory is None:
            raise UserError(
                "MemoryLoss was loaded from a file without its memory: compile the model again "
                "with MemoryLoss(loss, find_memory(model))"
            )
        num_queries = memory.num_queries
        num_logits = self.loss.num_classes if isinstance(self.loss, ParametricSupConLoss) else 0
        projections = y_pred[..., num_logits:]
        queries, keys = projections[:, :num_queries], projections[:, num_queries:]
        labels, validity = self._class_numbers(y_true, queries, memory)
        num_keys, dim = keys.shape[1:]
        new_keys = tf.reshape(distribution.gather(keys), [-1, dim])  # [B, K, P] -> [R*B*K, P]
        new_labels = tf.repeat(distribution.gather(labels), num_keys)
        contrast = tf.convert_to_tensor(memory.keys)
        contrast_labels = tf.convert_to_tensor(memory.labels)
        is_key = memory.is_filled()
        if memory.contrast == "batch_and_queue":
            contrast = tf.concat([new_keys, contrast], axis=0)
            contrast_labels = tf.concat([new_labels, contrast_labels], axis=0)
            is_key = tf.concat([tf.ones_like(new_labels, tf.bool), is_key], axis=0)
        if isinstance(self.loss, ParametricSupConLoss):
            values = contrast_set_parametric_loss(
                labels,
                y_pred[:, :num_queries, :num_logits],
                queries,
                contrast_labels,
                contrast,
                contrast_mask=is_key,
                log_prior=self.loss.log_prior,
                **self._options,
            )
        else:
            values = contrast_set_supcon_loss(
                labels,
                queries[:, :1] if self._anchors == "one_view" else queries,
                contrast_labels,
                contrast,
                contrast_mask=is_key,
                **self._options,
            )
            positives = share_label(labels, contrast_labels)
            values = rescale_to_masked_mean(values, tf.reduce_any(positives & is_key, axis=1))
        if memory.is_training:
            memory.push(new_keys, new_labels)
        return values * validity

    def get_config(self) -> dict[str, Any]:
        # The memory belongs to the model; a copy of it would be another queue.
        return {"name": self.name, "loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MemoryLoss":
        return cls(keras.saving.deserialize_keras_object(config.pop("loss")), **config)

    def _class_numbers(
        self, labels: Any, queries: tf.Tensor, memory: KeyMemory
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Class numbers int64 [N] and their validity."""
        first = distribution.first_row(tf.shape(queries)[0])
        if isinstance(self.loss, SimCLRLoss):
            # Unique: no earlier image and no other image of this batch has this number.
            positions, validity = as_labels(None, queries, first)
            return tf.convert_to_tensor(memory.count) + positions, validity
        if labels is not None:
            labels, validity = as_labels(labels, queries, first)
        if labels is None or labels.shape.rank != 1:
            raise UserError(
                f"{type(self.loss).__name__} with a memory takes class numbers [N], got "
                f"{'None' if labels is None else f'shape {tuple(labels.shape)}'}"
            )
        return labels, validity
