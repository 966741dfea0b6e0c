"""L2-regularised logistic regression on features, its strength chosen by validation."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from supcon_tf.errors import UserError, check_integer
from supcon_tf.evaluation.metrics import as_array

# Inverse strengths C; a higher one fits the training features more closely.
STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 5))
# Fewer images are validated on five shares in turn, more on one.
_FEW_IMAGES = 2_000
_SHARES = 5
_MAX_ITERATIONS = 1_000
_FAR = 30.0  # A logit of -30 is a probability of 1e-13.


@dataclasses.dataclass(frozen=True)
class LinearClassifier:
    """Class logits of raw features: features @ kernel + bias.

    Args:
      kernel: float32 [D, C].
      bias: float32 [C].
      strength: the chosen inverse strength C of the regularisation.
      validation_loss: mean cross-entropy of the validation images with it; for several labels per
        image, the mean of the binary cross-entropies of images and classes.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    validation_loss: float


def logistic_regression(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
) -> LinearClassifier:
    """Fits a softmax classifier, or a sigmoid for each class, by LBFGS.

    The result depends on the arguments only.

    minimises  sum_i cross_entropy_i + ||W||^2 / (2 C)  over (features - mean) / deviation

    by scikit-learn. The mean is that of each feature over the training images; the deviation is one
    number, the root mean square of what is left, so that features keep their proportions. C is the
    one of `STRENGTHS` with the lowest cross-entropy of images that were not fitted: the validation
    images, or shares of a fifth of each class: all five in turn, or one of more than 2,000 images.
    The final fit is on all training images. Of two classes, scikit-learn fits the difference w of
    the scores, with the penalty ||w||^2 / (2 C), which is ||W||^2 / C for W = (-w / 2, w / 2). Mean
    and deviation are folded into kernel and bias.

    Where an image may have several labels, each class has a binary logistic regression of its own,
    all with the same C, which has the lowest mean of their cross-entropies. The shares are drawn
    over all images; the only image with a class, or without it, is always fitted.

    Args:
      features: float [n, D].
      labels: integers [n] in 0 ... num_classes - 1, of two classes or more; or rows [n, C] of 0
        and 1 where an image may have several. A class without images gets a probability of about 0,
        and in the second case one that all images have about 1.
      num_classes: C.
      validation: features and labels that choose the strength; None for shares of the training
        images.
      seed: seed of the shares.

    Raises:
      UserError: other shapes, labels out of range, a single class, no class that some images have
        and others do not, or features that are not finite.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation.logistic_regression import logistic_regression
      >>> features = np.array([[0.0], [1.0], [9.0], [8.0]] * 5)
      >>> fitted = logistic_regression(features, np.array([0, 0, 1, 1] * 5), num_classes=2)
      >>> (features[:4] @ fitted.kernel + fitted.bias).argmax(axis=1).tolist()
      [0, 0, 1, 1]
    """
    features, labels = _checked(features, labels, num_classes)
    if labels.ndim == 2 and not _is_fitted(labels).any():
        raise UserError(
            "logistic regression needs a class that some images have and others do not, got none"
        )
    mean = features.mean(axis=0)
    scale = np.sqrt(np.square(features - mean).mean()) or 1.0
    rows = (features - mean) / scale
    if validation is None:
        parts = [
            ((rows[~held], labels[~held]), (rows[held], labels[held]))
            for held in _shares(labels, seed)
        ]
    else:
        others, known = _checked(*validation, num_classes)
        if known.ndim != labels.ndim:
            raise UserError(
                f"validation labels must be as the training labels, got shapes {known.shape} and "
                f"{labels.shape}"
            )
        parts = [((rows, labels), ((others - mean) / scale, known))]
    # The order of sums, and so the last digits, depend on the number of threads.
    with threadpool_limits(1):
        losses = _validation_losses(parts, num_classes)
        best = int(np.argmin(losses))
        kernel, bias = _solve(rows, labels, num_classes, STRENGTHS[: best + 1])[-1]
    kernel = kernel / scale
    return LinearClassifier(
        kernel.astype(np.float32),
        (bias - mean @ kernel).astype(np.float32),
        STRENGTHS[best],
        float(losses[best]),
    )


def _checked(features: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple:
    check_integer("num_classes", num_classes, at_least=2)
    features, labels = as_array("features", features), as_array("labels", labels)
    are_rows = labels.ndim == 2
    shape = (*features.shape[:1], num_classes) if are_rows else features.shape[:1]
    is_kind = labels.dtype.kind in ("biuf" if are_rows else "iu")
    if features.ndim != 2 or not features.size or labels.shape != shape or not is_kind:
        raise UserError(
            f"features must be [n, D] and labels integers [n] or rows [n, {num_classes}], got "
            f"shapes {features.shape} and {labels.shape} of {labels.dtype}"
        )
    if not np.isfinite(features).all():
        raise UserError("features must be finite, got NaN or infinity")
    if are_rows:
        is_other = ~np.isin(labels, (0, 1))
        if is_other.any():
            raise UserError(f"label rows must have 0 and 1, got {labels[is_other][0]}")
        return features.astype(np.float64), labels.astype(bool)
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= num_classes:
        raise UserError(
            f"labels must be in 0 ... {num_classes - 1}, got {labels.min()} to {labels.max()}"
        )
    if len(np.unique(labels)) < 2:
        raise UserError("logistic regression needs images of two classes or more, got one")
    return features.astype(np.float64), labels


def _is_fitted(labels: np.ndarray) -> np.ndarray:
    """Whether some images have a class and others do not: [n, C] -> [C]."""
    counts = labels.sum(axis=0)
    return (counts > 0) & (counts < len(labels))


def _shares(labels: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Masks [n] of the images that validate; a class of one image is always fitted."""
    share_of = np.full(len(labels), -1)
    for members, seeds in _groups(labels, seed):
        if len(members) > 1:
            order = np.random.default_rng(seeds).permutation(members)
            share_of[order] = np.arange(len(members)) % _SHARES
    for share in range(_SHARES if len(labels) <= _FEW_IMAGES else 1):
        if (share_of == share).any():
            yield share_of == share


def _groups(labels: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Numbers of images of which each share gets a fifth, and the seed of their order."""
    if labels.ndim == 2:
        # Classes overlap, so that the images with two labels would be in two groups.
        is_only = np.zeros(len(labels), bool)
        for kind in (labels, ~labels):
            is_only |= kind[:, kind.sum(axis=0) == 1].any(axis=1)
        yield np.flatnonzero(~is_only), [seed]
        return
    for label in np.unique(labels):
        yield np.flatnonzero(labels == label), [seed, int(label)]


def _validation_losses(parts: list, num_classes: int) -> np.ndarray:
    """The mean cross-entropy of the validation images for each strength, from low to high."""
    if not parts:  # One image of each class: nothing to choose by.
        return np.abs(np.log(STRENGTHS))
    losses = np.zeros(len(STRENGTHS))
    for (rows, labels), (others, known) in parts:
        for i, (kernel, bias) in enumerate(_solve(rows, labels, num_classes, STRENGTHS)):
            losses[i] += _cross_entropy(others @ kernel + bias, known)
    return losses / sum(len(known) for _, (_, known) in parts)


def _solve(
    rows: np.ndarray, labels: np.ndarray, num_classes: int, strengths: tuple[float, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel [D, C] and bias [C] for each strength."""
    if labels.ndim == 2:
        return _solve_each_class(rows, labels, strengths)
    solutions = []
    for model in _fits(rows, labels, strengths):
        kernel = np.zeros((rows.shape[1], num_classes))
        # Classes without images are far below the others.
        bias = np.full(num_classes, -_FAR)
        if len(model.classes_) == 2:
            # One sigmoid of w x + b is the softmax of -(w x + b) / 2 and (w x + b) / 2.
            kernel[:, model.classes_] = model.coef_.T * np.array([-0.5, 0.5])
            bias[model.classes_] = model.intercept_ * np.array([-0.5, 0.5])
        else:
            kernel[:, model.classes_] = model.coef_.T
            bias[model.classes_] = model.intercept_
        solutions.append((kernel, bias))
    return solutions


def _solve_each_class(
    rows: np.ndarray, labels: np.ndarray, strengths: tuple[float, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """As `_solve`, by a binary logistic regression for each class."""
    kernels = np.zeros((len(strengths), rows.shape[1], labels.shape[1]))
    # What holds for classes that no image has or all have; the others are overwritten.
    biases = np.tile(np.where(labels.any(axis=0), _FAR, -_FAR), (len(strengths), 1))
    for label in np.flatnonzero(_is_fitted(labels)):
        for i, model in enumerate(_fits(rows, labels[:, label], strengths)):
            kernels[i, :, label], biases[i, label] = model.coef_[0], model.intercept_[0]
    return list(zip(kernels, biases, strict=True))


def _fits(
    rows: np.ndarray, labels: np.ndarray, strengths: tuple[float, ...]
) -> Iterator[LogisticRegression]:
    """The same model fitted for each strength; each solution is the next one's start."""
    model = LogisticRegression(max_iter=_MAX_ITERATIONS, warm_start=True)
    for strength in strengths:
        yield model.set_params(C=strength).fit(rows, labels)


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The sum of the cross-entropies of some images, each a mean over classes for label rows."""
    if labels.ndim == 2:
        return float(np.sum(np.logaddexp(0, logits) - labels * logits) / labels.shape[1])
    highest = logits.max(axis=1)
    log_sums = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return float(np.sum(log_sums - logits[np.arange(len(labels)), labels]))
