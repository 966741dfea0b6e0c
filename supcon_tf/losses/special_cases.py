"""SINCERE, SimCLR and N-pairs: SupCon with some of its options fixed."""

from typing import Any

import keras
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.losses.base import LossLabels, PerSampleLoss
from supcon_tf.losses.labels import to_tensor
from supcon_tf.losses.pairs import Implementation
from supcon_tf.losses.supcon import SupConLoss


@keras.saving.register_keras_serializable(package="supcon_tf")
class SINCERELoss(PerSampleLoss):
    """SINCERE (Feeney & Hughes 2023, arXiv 2309.14277): `SupConLoss` with "one_positive".

    A positive competes with the negatives only, so that a class does not push itself apart. With a
    margin it is eps-SupInfoNCE (Barbano et al. 2023, arXiv 2211.05568, who take 0.25).

    Args:
      temperature, margin, scale_by_temperature, normalize, implementation: as in `supcon_loss`.
      reduction, name: as in `SupConLoss`.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import SINCERELoss
      >>> features = tf.constant([[[1., 0.]], [[1., 0.]], [[0., 1.]], [[0., 1.]]])
      >>> round(float(SINCERELoss(temperature=1.0)(tf.constant([0, 0, 1, 1]), features)), 4)
      0.5514
    """

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        margin: float = 0.0,
        scale_by_temperature: bool = True,
        normalize: bool = True,
        implementation: Implementation = "auto",
        reduction: str | None = "sum_over_batch_size",
        name: str = "sincere_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        self.options = {
            "temperature": temperature,
            "margin": margin,
            "scale_by_temperature": scale_by_temperature,
            "normalize": normalize,
            "implementation": implementation,
        }
        self._supcon = SupConLoss(denominator="one_positive", **self.options)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values whose mean is the mean over the samples with a positive."""
        return self._supcon.call(y_true, y_pred)


@keras.saving.register_keras_serializable(package="supcon_tf")
class SimCLRLoss(PerSampleLoss):
    """NT-Xent (Chen et al. 2020): SupCon with every sample as its own class. Ignores labels.

    Args:
      temperature, normalize, implementation, contrast_gradient: as in `supcon_loss`.
      scale_by_temperature: as in `supcon_loss`, but False by default, as in SimCLR's code.
      reduction, name: as in `SupConLoss`.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import SimCLRLoss
      >>> views = tf.constant([[[1., 0.], [1., 0.]], [[0., 1.], [0., 1.]]])
      >>> round(float(SimCLRLoss(temperature=1.0)(None, views)), 4)
      0.5514
    """

    labels: LossLabels = "none"

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        scale_by_temperature: bool = False,
        normalize: bool = True,
        implementation: Implementation = "auto",
        contrast_gradient: bool = True,
        reduction: str | None = "sum_over_batch_size",
        name: str = "simclr_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        self.options = {
            "temperature": temperature,
            "scale_by_temperature": scale_by_temperature,
            "normalize": normalize,
            "implementation": implementation,
            "contrast_gradient": contrast_gradient,
        }
        self._supcon = SupConLoss(**self.options)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values."""
        del y_true
        return self._supcon.call(None, y_pred)


@keras.saving.register_keras_serializable(package="supcon_tf")
class NPairsLoss(PerSampleLoss):
    """N-pairs (Sohn 2016), a special case of SupCon: one view, one positive, temperature 1.

    The positive of a sample is the first other sample of its class in the batch; the other
    samples of the class are ignored.

    Args:
      normalize: as in `supcon_loss`.
      reduction, name: as in `SupConLoss`.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import NPairsLoss
      >>> features = tf.constant([[[1., 0.]], [[1., 0.]], [[0., 1.]], [[0., 1.]]])
      >>> round(float(NPairsLoss()(tf.constant([0, 0, 1, 1]), features)), 4)
      0.5514
    """

    def __init__(
        self,
        *,
        normalize: bool = True,
        reduction: str | None = "sum_over_batch_size",
        name: str = "n_pairs_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        self.options = {"normalize": normalize}
        self._supcon = SupConLoss(temperature=1.0, positives_cap=1, **self.options)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values whose mean is the mean over the samples with a positive."""
        y_pred = to_tensor("y_pred", y_pred)
        if y_pred.shape.rank < 3 or y_pred.shape[1] != 1:
            raise UserError(f"NPairsLoss takes one view [N, 1, D], got shape {y_pred.shape}")
        return self._supcon.call(y_true, y_pred)
