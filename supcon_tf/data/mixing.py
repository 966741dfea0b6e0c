"""MixUp and CutMix: images of a batch are mixed in pairs, and their labels with them.

Both depend on a seed only, so a resumed run mixes the same images as an uninterrupted one.
"""

from typing import Protocol

import tensorflow as tf

from supcon_tf.data.augment.rng import split, uniforms
from supcon_tf.errors import UserError, check_number


class Mixing(Protocol):
    """Images [B, H, W, 3], targets [B, C] and a seed [] -> the same shapes, mixed."""

    def __call__(
        self, images: tf.Tensor, targets: tf.Tensor, *, seed: int | tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]: ...


def mixup(
    images: tf.Tensor, targets: tf.Tensor, *, seed: int | tf.Tensor, alpha: float = 0.2
) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends each image with another image of the batch, with one weight for all pairs.

    Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", arXiv 1710.09412.

    Args:
      images: float32 [B, H, W, 3].
      targets: float32 [B, C], rows that add up to one.
      seed: int64 [].
      alpha: the weight is drawn from Beta(alpha, alpha).

    Returns:
      Images and targets, w x + (1 - w) partner, of the same shapes.

    Raises:
      UserError: alpha < 0.02, or not images.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import mixing
      >>> images = tf.reshape([0., 1.], [2, 1, 1, 1]) * tf.ones([2, 4, 4, 3])
      >>> mixed, targets = mixing.mixup(images, tf.eye(2), seed=3)
      >>> bool(tf.reduce_all(abs(mixed[:, 0, 0, 0] - targets[:, 1]) < 1e-6))
      True
    """
    _check(images, targets, "mixing.mixup.alpha", alpha)
    weight_seed, partner_seed = tf.unstack(split(seed, 2))
    weight = _beta(weight_seed, alpha)
    partners = _partners(partner_seed, tf.shape(images)[0])

    def blend(values: tf.Tensor) -> tf.Tensor:
        return weight * values + (1.0 - weight) * tf.gather(values, partners)

    return blend(images), blend(targets)


def cutmix(
    images: tf.Tensor,
    targets: tf.Tensor,
    *,
    seed: int | tf.Tensor,
    alpha: float = 1.0,
    probability: float = 1.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pastes a box of another image of the batch into each image, at one place for all pairs.

    Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features", arXiv 1905.04899. The box has the image's aspect ratio and the share 1 - w of its
    area, w from Beta(alpha, alpha), around a uniform point. The border cuts the box, and the
    targets are weighted by the area inside.

    Args:
      images: float32 [B, H, W, 3].
      targets: float32 [B, C], rows that add up to one.
      seed: int64 [].
      alpha: of the Beta distribution.
      probability: probability of mixing a batch; 0.5 on CIFAR and 1 on ImageNet in the paper.

    Returns:
      Images and targets of the same shapes.

    Raises:
      UserError: alpha < 0.02, a probability outside [0, 1], or not images.
    """
    _check(images, targets, "mixing.cutmix.alpha", alpha)
    check_number("mixing.cutmix.probability", probability, at_least=0, at_most=1)
    weight_seed, partner_seed, place_seed = tf.unstack(split(seed, 3))
    side = tf.sqrt(1.0 - _beta(weight_seed, alpha))
    row, column, coin = tf.unstack(uniforms(place_seed, 3))
    side = tf.where(coin < probability, side, 0.0)

    def covered(size: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        # 1 in the rows or columns of the box, 0 elsewhere.
        length = tf.cast(size, tf.float32)
        half = tf.cast(side * length, tf.int32) // 2
        offset = tf.range(size) - tf.cast(place * length, tf.int32)
        return tf.cast((offset >= -half) & (offset < half), tf.float32)

    height, width = tf.shape(images)[1], tf.shape(images)[2]
    if images.shape[3] != 3:
        raise UserError(f"mixing.cutmix takes 3 channels, got images of shape {images.shape}")
    box = covered(height, row)[:, None] * covered(width, column)  # [H, W]
    partners = _partners(partner_seed, tf.shape(images)[0])
    share = tf.reduce_mean(box)
    # Rows of W * 3 numbers: TensorFlow is slow along an innermost axis of 3.
    rows = tf.reshape(images, [-1, height, 3 * width])
    mask = tf.repeat(box, 3, axis=1)
    mixed = (1.0 - mask) * rows + mask * tf.gather(rows, partners)
    return (
        tf.reshape(mixed, tf.shape(images)),
        (1.0 - share) * targets + share * tf.gather(targets, partners),
    )


def _partners(seed: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    return tf.argsort(uniforms(seed, count))


def _beta(seed: tf.Tensor, alpha: float) -> tf.Tensor:
    # In float64: with a small alpha both gammas may underflow in float32.
    pair = tf.random.stateless_gamma([2], tf.bitcast(seed, tf.int32), alpha, dtype=tf.float64)
    return tf.cast(pair[0] / tf.reduce_sum(pair), tf.float32)


def _check(images: tf.Tensor, targets: tf.Tensor, setting: str, alpha: float) -> None:
    if images.shape.rank != 4:
        raise UserError(
            f"mixing takes images [B, H, W, C], got shape {images.shape}: cached features cannot "
            "be mixed, set pipeline.training_batches.mixing = None; mix views one by one, with the "
            "same seed"
        )
    is_float = images.dtype.is_floating and targets.dtype.is_floating
    if not is_float or targets.shape.rank != 2:
        raise UserError(
            "mixing takes float images and float targets [B, C], got "
            f"{images.dtype.name} and {targets.dtype.name} of shape {targets.shape}"
        )
    if not images.shape[:1].is_compatible_with(targets.shape[:1]):
        raise UserError(
            f"mixing needs a target for each image, got {images.shape[0]} images and "
            f"{targets.shape[0]} targets"
        )
    # Below, both gammas of a Beta weight may underflow in float64.
    check_number(setting, alpha, at_least=0.02)
