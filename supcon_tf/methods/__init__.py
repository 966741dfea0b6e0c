"""What methods have beyond a loss and a model: state of their own."""

from supcon_tf.methods.key_memory import KeyMemory, MemoryLoss
from supcon_tf.methods.momentum_memory import memory_of, momentum_memory_model
from supcon_tf.methods.momentum_projection import MomentumProjection
from supcon_tf.methods.swav import Prototypes, swav_model

__all__ = [
    "KeyMemory",
    "MemoryLoss",
    "MomentumProjection",
    "Prototypes",
    "memory_of",
    "momentum_memory_model",
    "swav_model",
]
