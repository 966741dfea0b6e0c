"""Losses: for each, a pure function of labels and features, and a Keras loss class."""

from supcon_tf.losses.base import LossInput, LossLabels, loss_input, loss_labels
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
from supcon_tf.losses.triplet import TripletLoss, triplet_loss

__all__ = [
    "BinaryCrossEntropyLoss",
    "CrossEntropyLoss",
    "LargeMarginSoftmaxLoss",
    "LossInput",
    "LossLabels",
    "MarginAnnealing",
    "NPairsLoss",
    "SemiSupervisedLoss",
    "SimCLRLoss",
    "SuNCEtLoss",
    "SupConLoss",
    "SwAVLoss",
    "TripletLoss",
    "contrast_set_supcon_loss",
    "large_margin_softmax_loss",
    "loss_input",
    "loss_labels",
    "sinkhorn_knopp",
    "suncet_loss",
    "supcon_loss",
    "swav_loss",
    "triplet_loss",
]
