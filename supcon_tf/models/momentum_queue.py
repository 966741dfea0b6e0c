"""A queue of labelled keys, and the loss that reads and fills it."""

from typing import Any, Literal, get_args

import keras
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.errors import UserError
from supcon_tf.losses import SimCLRLoss, SupConLoss, contrast_set_supcon_loss
from supcon_tf.losses.base import PerSampleLoss
from supcon_tf.losses.contrast_set import positive_mask
from supcon_tf.losses.multiview import as_labels, rescale_to_masked_mean

Contrast = Literal["queue", "batch_and_queue"]


@keras.saving.register_keras_serializable(package="supcon_tf")
class KeyMemory(keras.layers.Layer):
    """A queue of keys with their labels, the newest last, the same on all replicas.

    It hands projections [B, V, P] on as they are; `MemoryLoss` reads and fills it.

    Args:
      size: keys that it holds; the oldest leave.
      num_queries: views of the projections that are queries; the others are keys.
      contrast: what a query stands against, "queue" or "batch_and_queue".
      kwargs: of a Keras layer.

    The attributes `keys`, float32 [size, P], `labels`, int64 [size], and `count`, int64, of all
    keys that ever came, are variables; the last min(size, count) keys and labels are there.
    """

    def __init__(
        self,
        size: int,
        *,
        num_queries: int = 1,
        contrast: Contrast = "batch_and_queue",
        **kwargs,
    ):
        if size < 1:
            raise UserError(f"memory_size must be >= 1, got {size}")
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
                # Every replica writes the keys of all.
                aggregation="only_first_replica",
                name=name,
            )

        self.keys = state("keys", (self.size, input_shape[-1]), "float32")
        self.labels = state("labels", (self.size,), "int64")
        self.count = state("count", (), "int64")

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        # The loss of this call, which is not told, fills the queue in training only.
        self.is_training = bool(training)
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    @property
    def num_bytes(self) -> int:
        """Of keys, labels and count."""
        return sum(
            variable.shape.num_elements() * variable.value.dtype.size for variable in self.weights
        )

    def is_filled(self) -> tf.Tensor:
        """Which slots hold a key: bool [size]."""
        newest_first = tf.range(self.size - 1, -1, -1, dtype=tf.int64)
        return newest_first < tf.convert_to_tensor(self.count)

    def push(self, keys: tf.Tensor, labels: tf.Tensor) -> None:
        """Adds keys float32 [n, P] with labels int64 [n]; the oldest leave."""
        for queue, new in ((self.keys, keys), (self.labels, labels)):
            moved = tf.concat([tf.convert_to_tensor(queue), new], axis=0)[-self.size :]
            queue.assign(tf.ensure_shape(moved, queue.shape))
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
    """A contrastive loss of queries against a `momentum_memory_model`'s batch keys and queue.

    `contrast_set_supcon_loss` with the options of `loss`; queries without a positive are left out
    of the mean, also over replicas. In a training step the keys of the global batch are pushed
    into the queue after it was read. `y_true` are class numbers [N], or None with SimCLR (the
    labels are then not used), which makes it MoCo: the keys of the query's own image are its
    positives.

    Args:
      loss: a `SupConLoss` or a `SimCLRLoss`, for its options. The similarities are dense, and
        there is no positives_cap.
      memory: of the model, as `find_memory` gives it. None is what a loss loaded from a file has:
        compile the loaded model again, with its own memory, before it trains on.
      name: of the loss; its reduction is that of `loss`.

    Raises:
      UserError: another loss or option, or SimCLR against the queue alone, where a query has no
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
        if not isinstance(loss, SupConLoss | SimCLRLoss):
            raise UserError(f"a memory takes a SupConLoss or a SimCLRLoss, got {loss!r}")
        if isinstance(loss, SimCLRLoss) and memory is not None and memory.contrast == "queue":
            raise UserError(
                "SimCLRLoss with a memory has its positives in the batch, got contrast = 'queue': "
                "set it to 'batch_and_queue'"
            )
        options = dict(loss.options)
        for option, wanted in (("positives_cap", (None,)), ("implementation", ("auto", "dense"))):
            given = options.pop(option, wanted[0])
            if given not in wanted:
                raise UserError(f"{option} must be {wanted[-1]!r} with a memory, got {given!r}")
        super().__init__(name=name, reduction=loss.reduction)
        self.loss = loss
        self.memory = memory
        self._anchors = options.pop("anchors", "all_views")
        self._options = options

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values whose mean is the mean over the samples that have a positive."""
        memory = self.memory
        if memory is None:
            raise UserError(
                "MemoryLoss has no memory, got a loss from a file: compile the model again with "
                "MemoryLoss(loss, find_memory(model))"
            )
        num_queries = memory.num_queries
        queries, keys = y_pred[:, :num_queries], y_pred[:, num_queries:]
        labels = self._class_numbers(y_true, queries, memory)
        num_keys, length = keys.shape[1:]
        new_keys = tf.reshape(distribution.gather(keys), [-1, length])  # [B, K, P] -> [R*B*K, P]
        new_labels = tf.repeat(distribution.gather(labels), num_keys)
        contrast = tf.convert_to_tensor(memory.keys)
        contrast_labels = tf.convert_to_tensor(memory.labels)
        is_there = memory.is_filled()
        if memory.contrast == "batch_and_queue":
            contrast = tf.concat([new_keys, contrast], axis=0)
            contrast_labels = tf.concat([new_labels, contrast_labels], axis=0)
            is_there = tf.concat([tf.ones_like(new_labels, tf.bool), is_there], axis=0)
        values = contrast_set_supcon_loss(
            labels,
            queries[:, :1] if self._anchors == "one_view" else queries,
            contrast_labels,
            contrast,
            contrast_mask=is_there,
            **self._options,
        )
        positives = positive_mask(labels, queries, contrast_labels, contrast[:, None])
        values = rescale_to_masked_mean(values, tf.reduce_any(positives & is_there, axis=1))
        if memory.is_training:
            memory.push(new_keys, new_labels)
        return values

    def get_config(self) -> dict[str, Any]:
        # The memory is the model's; a copy of it would be another queue.
        return {"name": self.name, "loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MemoryLoss":
        return cls(keras.saving.deserialize_keras_object(config.pop("loss")), **config)

    def _class_numbers(self, labels: Any, queries: tf.Tensor, memory: KeyMemory) -> tf.Tensor:
        first = distribution.first_row(tf.shape(queries)[0])
        if isinstance(self.loss, SimCLRLoss):
            # The number of its first key: no image before or in this batch has it.
            return tf.convert_to_tensor(memory.count) + as_labels(None, queries, first)
        labels = None if labels is None else as_labels(labels, queries, first)
        if labels is None or labels.shape.rank != 1:
            raise UserError(
                "SupConLoss with a memory takes class numbers [N], got "
                f"{'None' if labels is None else f'shape {tuple(labels.shape)}'}"
            )
        return labels
