"""Encoders, heads and the Keras models that training compiles."""

import keras

from supcon_tf.errors import UserError
from supcon_tf.models.balanced_classifier import (
    BalancedClassifier,
    balanced_classifier,
    find_balanced_classifier,
)
from supcon_tf.models.contrastive import classification_model, contrastive_model
from supcon_tf.models.distributed import ReplicatedModel
from supcon_tf.models.embedding import embedding_model, model_parts
from supcon_tf.models.encoders import InputScaling, pretrained
from supcon_tf.models.freezing import freeze
from supcon_tf.models.heads import (
    L2Normalization,
    classification_head,
    normalizing_head,
    projection_head,
)
from supcon_tf.models.initializers import FanInUniform
from supcon_tf.models.large_margin_head import LargeMarginHead, class_scores
from supcon_tf.models.momentum_encoder import MomentumProjection
from supcon_tf.models.momentum_memory import find_memory, momentum_memory_model
from supcon_tf.models.momentum_queue import KeyMemory, MemoryLoss
from supcon_tf.models.parametric import parametric_model
from supcon_tf.models.resnet import resnet, resnext
from supcon_tf.models.swav import Prototypes, swav_model

if keras.backend.backend() != "tensorflow":
    raise UserError(
        f"supcon_tf needs Keras on the TensorFlow backend, got {keras.backend.backend()!r}: set "
        'KERAS_BACKEND=tensorflow, or "backend" in ~/.keras/keras.json'
    )

__all__ = [
    "BalancedClassifier",
    "FanInUniform",
    "InputScaling",
    "KeyMemory",
    "L2Normalization",
    "LargeMarginHead",
    "MemoryLoss",
    "MomentumProjection",
    "Prototypes",
    "ReplicatedModel",
    "balanced_classifier",
    "class_scores",
    "classification_head",
    "classification_model",
    "contrastive_model",
    "embedding_model",
    "find_balanced_classifier",
    "find_memory",
    "freeze",
    "model_parts",
    "momentum_memory_model",
    "normalizing_head",
    "parametric_model",
    "pretrained",
    "projection_head",
    "resnet",
    "resnext",
    "swav_model",
]
