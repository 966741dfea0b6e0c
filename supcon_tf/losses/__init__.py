"""Losses: a pure function of labels and features each, and a Keras loss over it."""

from supcon_tf.losses.contrast_set import contrast_set_supcon_loss
from supcon_tf.losses.cross_entropy import BinaryCrossEntropyLoss, CrossEntropyLoss
from supcon_tf.losses.large_margin import (
    LargeMarginSoftmaxLoss,
    MarginAnnealing,
    large_margin_softmax_loss,
)
from supcon_tf.losses.semi_supervised import SemiSupervisedLoss
from supcon_tf.losses.suncet import SuNCEtLoss, suncet_loss
from supcon_tf.losses.supcon import NPairsLoss, SimCLRLoss, SupConLoss, supcon_loss
from supcon_tf.losses.swav import SwAVLoss, sinkhorn_knopp, swav_loss

__all__ = [
    "BinaryCrossEntropyLoss",
    "CrossEntropyLoss",
    "LargeMarginSoftmaxLoss",
    "MarginAnnealing",
    "NPairsLoss",
    "SemiSupervisedLoss",
    "SimCLRLoss",
    "SuNCEtLoss",
    "SupConLoss",
    "SwAVLoss",
    "contrast_set_supcon_loss",
    "large_margin_softmax_loss",
    "sinkhorn_knopp",
    "suncet_loss",
    "supcon_loss",
    "swav_loss",
]
