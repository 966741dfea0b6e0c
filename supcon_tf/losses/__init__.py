"""Losses: a pure function of labels and features each, and a Keras loss over it."""

from supcon_tf.losses.against import supcon_against
from supcon_tf.losses.cross_entropy import CrossEntropyLoss
from supcon_tf.losses.margin import (
    LargeMarginSoftmaxLoss,
    MarginAnnealing,
    large_margin_softmax_loss,
)
from supcon_tf.losses.suncet import SuNCEtLoss, suncet_loss
from supcon_tf.losses.supcon import NPairsLoss, SimCLRLoss, SupConLoss, supcon_loss

__all__ = [
    "CrossEntropyLoss",
    "LargeMarginSoftmaxLoss",
    "MarginAnnealing",
    "NPairsLoss",
    "SimCLRLoss",
    "SuNCEtLoss",
    "SupConLoss",
    "large_margin_softmax_loss",
    "suncet_loss",
    "supcon_against",
    "supcon_loss",
]
