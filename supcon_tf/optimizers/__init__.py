"""LARS, learning-rate schedules and weight decay."""

from supcon_tf.optimizers.lars import LARS
from supcon_tf.optimizers.multipliers import multiply_learning_rates
from supcon_tf.optimizers.schedules import WarmupSchedule, warmup_schedule
from supcon_tf.optimizers.weight_decay import apply_weight_decay

__all__ = [
    "LARS",
    "WarmupSchedule",
    "apply_weight_decay",
    "multiply_learning_rates",
    "warmup_schedule",
]
