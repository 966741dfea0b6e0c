"""What methods have beyond a loss and a model: state of their own."""

from supcon_tf.methods.momentum_memory import (
    KeyMemory,
    MemoryLoss,
    MomentumProjection,
    memory_of,
    momentum_memory_model,
)

__all__ = [
    "KeyMemory",
    "MemoryLoss",
    "MomentumProjection",
    "memory_of",
    "momentum_memory_model",
]
