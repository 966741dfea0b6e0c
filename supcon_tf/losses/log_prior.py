"""Logit adjustment for long-tailed classes: the log of each class's share is added to the logits.

Menon et al. 2021, "Long-tail learning via logit adjustment", arXiv 2007.07314, with tau 1. The
training loss sees the adjusted logits; a prediction takes the plain ones.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from supcon_tf.errors import UserError, check_number
from supcon_tf.losses.labels import require, to_tensor

_NOT_LOGS = "must be logs of shares, <= 0: give np.log(counts / counts.sum())"

LogPrior = Sequence[float] | Literal["source"] | None


def check_log_prior(log_prior: Any) -> list[float] | Literal["source"] | None:
    """Returns the option of a loss class: numbers as a list, "source", or None.

    Raises:
      UserError: another value, or numbers that are not finite or above 0.
    """
    if log_prior is None:
        return None
    if isinstance(log_prior, str):
        if log_prior != "source":
            raise UserError(f"log_prior must be numbers, 'source' or None, got {log_prior!r}")
        return "source"
    if not isinstance(log_prior, Sequence | np.ndarray):
        raise UserError(f"log_prior must be numbers, 'source' or None, got {log_prior!r}")
    for number in log_prior:
        check_number("log_prior", number)
        if number > 0:
            raise UserError(f"log_prior {_NOT_LOGS}, got {number}")
    return [float(number) for number in log_prior]


def add_log_prior(logits: tf.Tensor, log_prior: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Logits + log prior, and the validity of the prior.

    Args:
      logits: float32 [..., C].
      log_prior: finite numbers [C], or None.

    Raises:
      UserError: numbers of another shape, not finite or above 0, or "source".
    """
    if log_prior is None:
        return logits, tf.ones([])
    if isinstance(log_prior, str):
        raise UserError(
            f"log_prior must be numbers [{logits.shape[-1]}] here, got {log_prior!r}: only the "
            "stages know the source, in your own fit give np.log(counts / counts.sum())"
        )
    log_prior = tf.cast(to_tensor("log_prior", log_prior), tf.float32)
    if log_prior.shape != [logits.shape[-1]]:
        raise UserError(f"log_prior must be [{logits.shape[-1]}], got shape {log_prior.shape}")
    validity = require(
        tf.reduce_all(tf.math.is_finite(log_prior)),
        "log_prior must be finite: leave out classes without training images",
        log_prior,
    )
    validity *= require(tf.reduce_all(log_prior <= 0), f"log_prior {_NOT_LOGS}", log_prior)
    return logits + log_prior, validity
