"""Pairs tile by tile: the same numbers as from the matrix of similarities, in linear memory."""

from supcon_tf.losses.streaming.pairs import StreamingPairs, allows_self_contrast

__all__ = ["StreamingPairs", "allows_self_contrast"]
