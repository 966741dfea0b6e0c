"""Losses: for each, a pure function of labels and features, and a Keras loss class."""

from supcon_tf.losses.balanced_supcon import BalancedSupConLoss, balanced_supcon_loss
from supcon_tf.losses.base import LossInput, LossLabels, loss_input, loss_labels
from supcon_tf.losses.contrast_set import contrast_set_supcon_loss
from supcon_tf.losses.cross_entropy import BinaryCrossEntropyLoss, CrossEntropyLoss
from supcon_tf.losses.large_margin import (
    LargeMarginSoftmaxLoss,
    MarginAnnealing,
    large_margin_softmax_loss,
)
from supcon_tf.losses.parametric_supcon import ParametricSupConLoss, parametric_supcon_loss
from supcon_tf.losses.semi_supervised import SemiSupervisedLoss
from supcon_tf.losses.soft_supcon import SoftSupConLoss, soft_supcon_loss
from supcon_tf.losses.special_cases import NPairsLoss, SimCLRLoss, SINCERELoss
from supcon_tf.losses.suncet import SuNCEtLoss, suncet_loss
from supcon_tf.losses.supcon import SupConLoss, supcon_loss
from supcon_tf.losses.swav import SwAVLoss, sinkhorn_knopp, swav_loss
from supcon_tf.losses.triplet import TripletLoss, triplet_loss

__all__ = [
    "BalancedSupConLoss",
    "BinaryCrossEntropyLoss",
    "CrossEntropyLoss",
    "LargeMarginSoftmaxLoss",
    "LossInput",
    "LossLabels",
    "MarginAnnealing",
    "NPairsLoss",
    "ParametricSupConLoss",
    "SINCERELoss",
    "SemiSupervisedLoss",
    "SimCLRLoss",
    "SoftSupConLoss",
    "SuNCEtLoss",
    "SupConLoss",
    "SwAVLoss",
    "TripletLoss",
    "balanced_supcon_loss",
    "contrast_set_supcon_loss",
    "large_margin_softmax_loss",
    "loss_input",
    "loss_labels",
    "parametric_supcon_loss",
    "sinkhorn_knopp",
    "soft_supcon_loss",
    "suncet_loss",
    "supcon_loss",
    "swav_loss",
    "triplet_loss",
]
