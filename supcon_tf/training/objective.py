"""Which loss class scores are trained with: for one label per image, or for several."""

import keras

from supcon_tf.data.sources import Source
from supcon_tf.errors import UserError
from supcon_tf.losses import (
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    LargeMarginSoftmaxLoss,
    NPairsLoss,
    SimCLRLoss,
    SuNCEtLoss,
    SupConLoss,
    SwAVLoss,
)

# Probabilities of classes that shut each other out, and those of independent ones.
_OF_ONE_LABEL = (
    CrossEntropyLoss,
    LargeMarginSoftmaxLoss,
    keras.losses.CategoricalCrossentropy,
    keras.losses.SparseCategoricalCrossentropy,
)
_OF_SEVERAL_LABELS = (BinaryCrossEntropyLoss, keras.losses.BinaryCrossentropy)
OF_CLASS_SCORES = (*_OF_ONE_LABEL, *_OF_SEVERAL_LABELS)
OF_PROJECTIONS = (NPairsLoss, SimCLRLoss, SuNCEtLoss, SupConLoss, SwAVLoss)


def class_loss(
    loss: keras.losses.Loss | None, source: Source, *, ignore_class: int | None = None
) -> keras.losses.Loss:
    """The loss itself, or the cross-entropy of the source's kind in the place of None.

    Args:
      loss: of the class scores [B, C].
      source: whose labels it takes.
      ignore_class: of cross-entropy for one label per image, unless it has one of its own.

    Raises:
      UserError: a loss for labels of the other kind.
    """
    if loss is None:
        several, one = BinaryCrossEntropyLoss, CrossEntropyLoss
        return several() if source.is_multi_label else one(ignore_class=ignore_class)
    if source.is_multi_label and isinstance(loss, _OF_ONE_LABEL):
        raise UserError(
            f"{type(loss).__name__} is for one label per image, those of {source.name!r} may have "
            "several: take @losses.BinaryCrossEntropyLoss()"
        )
    if not source.is_multi_label and isinstance(loss, _OF_SEVERAL_LABELS):
        raise UserError(
            f"{type(loss).__name__} is for images with several labels, those of {source.name!r} "
            "have one: take @losses.CrossEntropyLoss(), or sources.table.multi_label = True"
        )
    has_none = isinstance(loss, CrossEntropyLoss) and loss.ignore_class is None
    if has_none and ignore_class is not None:
        return CrossEntropyLoss.from_config({**loss.get_config(), "ignore_class": ignore_class})
    return loss
