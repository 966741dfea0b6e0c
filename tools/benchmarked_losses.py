"""The losses of benchmark_loss.py: this package's, and their formulas in PyTorch.

Every function takes rows of one view [N, D] and class numbers [N], and returns [N] values. Losses
with several or soft labels derive them from the class numbers: a sample has the classes y, y + 1
and 2 y, modulo C, the soft ones with the weights 0.6, 0.3 and 0.1.
"""

from typing import Any

import numpy as np

TEMPERATURE = 0.1
MARGIN = 0.25
ALPHA = 0.05
LOSSES = (
    "supcon",
    "sincere",
    "margin",
    "mean_positive",
    "any",
    "overlap",
    "per_label",
    "soft",
    "balanced",
    "parametric",
)


def class_rows(labels: np.ndarray, *, soft: bool) -> np.ndarray:
    """float32 [N, C] of the classes y, y + 1 and 2 y, modulo C."""
    num_classes = int(labels.max()) + 1
    rows = np.zeros((len(labels), num_classes), np.float32)
    for offsets, weight in ((labels, 0.6), (labels + 1, 0.3), (2 * labels, 0.1)):
        rows[np.arange(len(labels)), offsets % num_classes] += weight
    return rows if soft else (rows > 0).astype(np.float32)


def centers_of(labels: np.ndarray, dim: int) -> np.ndarray:
    """float32 [C, D]."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(int(labels.max()) + 1, dim)).astype(np.float32)


def tensorflow_loss(
    name: str, labels: np.ndarray, dim: int, implementation: str, options: dict[str, Any]
) -> Any:
    """rows -> values of this package's loss; `options` are further ones of `supcon_loss`."""
    import tensorflow as tf

    from supcon_tf import losses

    common: dict[str, Any] = {"temperature": TEMPERATURE, "implementation": implementation}
    if name in ("soft", "balanced", "parametric"):
        centers = tf.constant(centers_of(labels, dim))
        function = {
            "soft": lambda x, y: losses.soft_supcon_loss(y, x, **common),
            "balanced": lambda x, y: losses.balanced_supcon_loss(y, x, centers, **common),
            "parametric": lambda x, y: losses.parametric_supcon_loss(
                y, tf.matmul(x[:, 0], centers, transpose_b=True), x, alpha=ALPHA, **common
            ),
        }[name]
    else:
        of_loss: dict[str, dict[str, Any]] = {
            "sincere": {"denominator": "one_positive"},
            "margin": {"denominator": "one_positive", "margin": MARGIN},
            "mean_positive": {
                "denominator": "mean_positive",
                "summation": "inside",
                "margin": MARGIN,
            },
            "overlap": {"multi_label": "overlap"},
            "per_label": {"multi_label": "per_label"},
        }
        options = {**of_loss.get(name, {}), **options}

        def function(x: Any, y: Any) -> Any:
            return losses.supcon_loss(y, x, scale_by_temperature=False, **common, **options)

    several = name in ("any", "overlap", "per_label", "soft")
    targets = tf.constant(class_rows(labels, soft=name == "soft") if several else labels)
    return lambda rows: function(rows[:, None], targets)


def torch_formula(name: str, labels: np.ndarray, dim: int) -> Any:
    """rows -> values by the loss's equation in PyTorch, with matrices of N x N."""
    import torch

    classes = torch.from_numpy(labels)
    centers = torch.from_numpy(centers_of(labels, dim))
    others = ~torch.eye(len(labels), dtype=torch.bool)
    if name in ("any", "overlap", "per_label", "soft"):
        rows = torch.from_numpy(class_rows(labels, soft=name == "soft"))
        left = rows
        if name == "per_label":
            counts = rows.sum(0) - 1
            left = torch.where(counts > 0, rows / counts.clamp(min=1), 0.0)
            left = left / (rows * (counts > 0)).sum(1, keepdim=True).clamp(min=1)
        weights = (left @ rows.T) * others
        if name == "any":
            weights = (weights > 0).float()
    else:
        weights = ((classes[:, None] == classes[None, :]) & others).float()
    totals = weights.sum(1)
    shares = weights / totals.clamp(min=1e-12)[:, None]

    def log_sum(values: Any, mask: Any) -> Any:
        return values.masked_fill(~mask, -torch.inf).logsumexp(1)

    def values(x: Any) -> Any:
        units = torch.nn.functional.normalize(x, dim=1)
        s = units @ units.T / TEMPERATURE
        if name in ("sincere", "margin"):
            margin = MARGIN if name == "margin" else 0.0
            negatives = log_sum(s, (weights == 0) & others) + margin
            ratios = torch.nn.functional.logsigmoid(s - negatives[:, None]) + margin
            return -(shares * ratios).sum(1)
        if name == "mean_positive":
            # A row without positives takes itself, so that no gradient is NaN; its loss is 0.
            is_positive = (weights > 0) | (~others & (totals == 0)[:, None])
            log_positives = log_sum(s, is_positive) - totals.clamp(min=1).log()
            pair = torch.stack([log_positives - MARGIN, log_sum(s, (weights == 0) & others)], dim=1)
            return (pair.logsumexp(1) - log_positives).where(totals > 0, 0.0)
        if name == "balanced":
            unit_centers = torch.nn.functional.normalize(centers, dim=1)
            all_s = torch.cat([s, units @ unit_centers.T / TEMPERATURE], dim=1)
            columns = torch.cat([classes, torch.arange(len(centers))])
            own = classes[:, None] == columns[None, :]
            sizes = torch.bincount(columns)[columns] - own.long()
            mask = torch.cat([others, torch.ones_like(all_s[:, len(x) :], dtype=torch.bool)], 1)
            log_denominator = log_sum(all_s - sizes.clamp(min=1).log(), mask)
            positives = (own & mask).float()
            return log_denominator - (positives * all_s).sum(1) / positives.sum(1)
        if name == "parametric":
            logits = x @ centers.T
            both = torch.cat([log_sum(s, others)[:, None], logits], dim=1)
            score = logits.gather(1, classes[:, None])[:, 0] + ALPHA * (weights * s).sum(1)
            return both.logsumexp(1) - score / (1 + ALPHA * totals)
        return (totals > 0) * (log_sum(s, others) - (shares * s).sum(1))

    return values
