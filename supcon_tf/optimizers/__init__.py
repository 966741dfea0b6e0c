"""LARS, learning-rate schedules, weight decay and learning-rate multipliers.

Where the learning rate enters the momentum: `keras.optimizers.SGD`, and `LARS` here and in the
released SupCon code, compute v <- m v + lr g, w <- w - v. The released momentum and Nesterov runs
used `tf.train.MomentumOptimizer`, which like PyTorch computes v <- m v + g, w <- w - lr v. Both
give the same weights while the rate is constant. When it changes, the first form follows with the
momentum's delay of about 1 / (1 - m) = 10 steps, which matters after the drops of a piecewise
schedule.
"""

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
