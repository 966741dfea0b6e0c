"""Encoders, heads and the models that training compiles."""

from supcon_tf.models.contrastive import (
    classification_model,
    contrastive_model,
    embedding_model,
    parts_of,
)
from supcon_tf.models.heads import L2Normalization, classification_head, projection_head
from supcon_tf.models.margin_head import LargeMarginHead, class_scores
from supcon_tf.models.resnet import resnet, resnext

__all__ = [
    "L2Normalization",
    "LargeMarginHead",
    "class_scores",
    "classification_head",
    "classification_model",
    "contrastive_model",
    "embedding_model",
    "parts_of",
    "projection_head",
    "resnet",
    "resnext",
]
