"""A loss of the samples without a label, and one of those that have one, in the same batch."""

from typing import Any

import keras
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.losses.base import LossLabels, PerSampleLoss, loss_input
from supcon_tf.losses.multiview import rescale_to_masked_mean
from supcon_tf.losses.suncet import SuNCEtLoss
from supcon_tf.losses.supcon import SimCLRLoss


@keras.saving.register_keras_serializable(package="supcon_tf")
class SemiSupervisedLoss(PerSampleLoss):
    """Mean loss of the samples without a label + weight * mean loss of those with one.

    By default SimCLR and SuNCEt, the sum that Assran et al. 2020 (arXiv 2006.10803) train on. Each
    loss sees its own samples only: those with a label are no negatives of those without. Both
    means are over the global batch; a part that has no samples in it adds 0.

    Args:
      unlabelled: loss of [n, ...] outputs, called with the labels None; None for no such part.
      labelled: loss of labels int64 [m] and outputs [m, ...]; None for no such part.
      weight: of the labelled part, >= 0.
      reduction: a Keras reduction; with None, `[N]` values whose mean is the loss.
      name: of the loss.

    `y_true` are integers [N] or [N, 1], negative where there is no label, and `y_pred` the outputs
    [N, ...] that both parts take, such as projections [N, V, D]. The parts' own reductions are not
    used.

    Raises:
      UserError: two parts of None, a weight < 0, or labels that are no integers.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import SemiSupervisedLoss, SimCLRLoss, SuNCEtLoss
      >>> loss = SemiSupervisedLoss(
      ...     unlabelled=SimCLRLoss(temperature=1.0), labelled=SuNCEtLoss(temperature=1.0))
      >>> one, other = [[1., 0.], [1., 0.]], [[0., 1.], [0., 1.]]
      >>> features = tf.constant([one, other, one, other])
      >>> round(float(loss(tf.constant([-1, -1, 0, 1]), features)), 4)  # 0.5514 + 0.5514
      1.1029
    """

    labels: LossLabels = "single"

    def __init__(
        self,
        *,
        unlabelled: keras.losses.Loss | None = SimCLRLoss(),  # noqa: B008, it is never changed.
        labelled: keras.losses.Loss | None = SuNCEtLoss(),  # noqa: B008
        weight: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "semi_supervised_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        if unlabelled is None and labelled is None:
            raise UserError("give unlabelled or labelled, got None for both")
        if not weight >= 0:
            raise UserError(f"weight must be >= 0, got {weight}")
        inputs = sorted({loss_input(part) for part in (unlabelled, labelled) if part is not None})
        if len(inputs) > 1:
            raise UserError(f"unlabelled and labelled must take the same output, got {inputs}")
        self.input = inputs[0]
        self.unlabelled, self.labelled, self.weight = unlabelled, labelled, weight

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values whose mean is the sum of both means."""
        labels, outputs = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
        if labels.shape.rank not in (1, 2) or labels.shape[1:].num_elements() != 1:
            raise UserError(f"labels must be integers [N], got shape {labels.shape}")
        if not labels.dtype.is_integer:
            raise UserError(f"labels must be integers [N], got {labels.dtype.name}")
        labels = tf.cast(tf.reshape(labels, [-1]), tf.int64)
        has_label = labels >= 0
        values = tf.zeros(tf.shape(labels), tf.float32)
        if self.unlabelled is not None:
            values += self._of_part(self.unlabelled, None, outputs, ~has_label)
        if self.labelled is not None:
            values += self.weight * self._of_part(self.labelled, labels, outputs, has_label)
        return values

    def _of_part(
        self, loss: keras.losses.Loss, labels: tf.Tensor | None, outputs: tf.Tensor, rows: tf.Tensor
    ) -> tf.Tensor:
        """The loss of these rows alone, in their places among [N] whose mean is theirs."""
        places = tf.where(rows)
        chosen = tf.gather_nd(outputs, places)
        own = loss.call(None if labels is None else tf.gather_nd(labels, places), chosen)
        spread = tf.scatter_nd(places, tf.cast(own, tf.float32), tf.shape(rows, tf.int64))
        return rescale_to_masked_mean(spread, rows)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "unlabelled": keras.saving.serialize_keras_object(self.unlabelled),
            "labelled": keras.saving.serialize_keras_object(self.labelled),
            "weight": self.weight,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SemiSupervisedLoss":
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("unlabelled", "labelled")
        }
        return cls(**{**config, **parts})
