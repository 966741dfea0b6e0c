"""Semi-supervised training: one loss for unlabelled and one for labelled samples of a batch."""

from typing import Any

import keras
import tensorflow as tf

from supcon_tf.errors import UserError, check_number
from supcon_tf.losses.base import LossLabels, PerSampleLoss, loss_input
from supcon_tf.losses.labels import check_same_length, class_numbers, to_tensor
from supcon_tf.losses.multiview import rescale_to_masked_mean
from supcon_tf.losses.special_cases import SimCLRLoss
from supcon_tf.losses.suncet import SuNCEtLoss


@keras.saving.register_keras_serializable(package="supcon_tf")
class SemiSupervisedLoss(PerSampleLoss):
    """Mean loss of the unlabelled samples + weight * mean loss of the labelled samples.

    The default is SimCLR + SuNCEt, as in Assran et al. 2020 (arXiv 2006.10803). Labelled and
    unlabelled samples are not contrasted with each other. Both means are over the global batch;
    the mean of no samples is 0.

    `y_true` are class numbers, integers [N] or [N, 1] or whole floats [N, 1], negative for
    unlabelled samples. `y_pred` are the outputs [N, ...] that both parts take, such as projections
    [N, V, D]. The parts' reductions are unused.

    Args:
      unlabelled: loss called with labels None and outputs [n, ...]; None ignores these samples.
      labelled: loss called with labels int64 [m] and outputs [m, ...]; None ignores these samples.
      weight: weight of the labelled loss, >= 0.
      reduction: a Keras reduction; None returns [N] values whose mean is the loss.
      name: name of the loss.

    Raises:
      UserError: no part, parts with different inputs, a weight < 0, or labels that are not
        integers.

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
        unlabelled: keras.losses.Loss | None = SimCLRLoss(),  # noqa: B008, immutable.
        labelled: keras.losses.Loss | None = SuNCEtLoss(),  # noqa: B008
        weight: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "semi_supervised_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        if unlabelled is None and labelled is None:
            raise UserError("one of unlabelled and labelled must be given, got None for both")
        check_number("weight", weight, at_least=0)
        inputs = sorted({loss_input(part) for part in (unlabelled, labelled) if part is not None})
        if len(inputs) > 1:
            raise UserError(f"unlabelled and labelled must take the same output, got {inputs}")
        self.input = inputs[0]
        self.unlabelled, self.labelled, self.weight = unlabelled, labelled, weight

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values whose mean is the loss."""
        labels, outputs = to_tensor("labels", y_true), to_tensor("outputs", y_pred)
        numbers, validity = class_numbers(labels)
        if numbers is None:
            raise UserError(
                f"labels must be integers [N], got {labels.dtype.name} of shape {labels.shape}"
            )
        validity *= check_same_length(numbers, outputs)
        has_label = numbers >= 0
        values = tf.zeros(tf.shape(numbers), tf.float32)
        if self.unlabelled is not None:
            values += self._part_values(self.unlabelled, None, outputs, ~has_label)
        if self.labelled is not None:
            values += self.weight * self._part_values(self.labelled, numbers, outputs, has_label)
        return values * validity

    def _part_values(
        self, loss: keras.losses.Loss, labels: tf.Tensor | None, outputs: tf.Tensor, mask: tf.Tensor
    ) -> tf.Tensor:
        """[N] values whose mean is the mean loss of the samples in the mask."""
        positions = tf.where(mask)
        part_labels = None if labels is None else tf.gather_nd(labels, positions)
        values = loss.call(part_labels, tf.gather_nd(outputs, positions))
        values = tf.scatter_nd(positions, tf.cast(values, tf.float32), tf.shape(mask, tf.int64))
        return rescale_to_masked_mean(values, mask)

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
