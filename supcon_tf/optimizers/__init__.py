"""LARS, learning-rate schedules and weight decay."""

from supcon_tf.optimizers.lars import LARS
from supcon_tf.optimizers.schedules import WarmupSchedule, warmup_schedule
from supcon_tf.optimizers.weight_decay import apply_weight_decay

__all__ = ["LARS", "WarmupSchedule", "apply_weight_decay", "warmup_schedule"]
