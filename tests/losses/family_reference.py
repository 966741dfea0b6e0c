"""The later losses of the family as slow float64 loops, written from the equations.

Each returns the loss of each sample, [N]; gradients come from finite differences.
"""

import math

import numpy as np

from tests.reference import label_sets, log_sum_exp, normalized


def _anchors(features, temperature, normalize=True):
    """For each anchor row: its sample, and {other row: similarity}."""
    features = np.asarray(features, np.float64)
    rows = normalized(features) if normalize else features
    names = list(np.ndindex(rows.shape[:2]))
    for anchor in names:
        others = [name for name in names if name != anchor]
        yield anchor, {name: float(rows[anchor] @ rows[name]) / temperature for name in others}


def _sample_means(features, temperature, loss_of_anchor, normalize=True):
    losses = np.zeros(len(features))
    for (sample, view), similarity in _anchors(features, temperature, normalize):
        losses[sample] += loss_of_anchor(sample, view, similarity) / np.shape(features)[1]
    return losses


def margin(labels, features, *, temperature, margin, denominator="one_positive", normalize=True):
    """eps-SupInfoNCE; with denominator "all" every positive has the margin.

    "mean_positive" is its "in" form, with the mean over the positives in the numerator too.
    """
    classes = label_sets(labels, len(features))

    def loss(sample, _, similarity):
        positives = [row for row in similarity if classes[row[0]] & classes[sample]]
        negatives = [similarity[row] for row in similarity if row not in positives]
        if denominator == "mean_positive":
            if not positives:
                return 0.0
            log_mean = log_sum_exp([similarity[row] for row in positives]) - math.log(
                len(positives)
            )
            return log_sum_exp([log_mean - margin, *negatives]) - log_mean
        total = 0.0
        for positive in positives:
            in_denominator = [positive] if denominator == "one_positive" else positives
            shifted = [similarity[row] - margin for row in in_denominator]
            total += similarity[positive] - log_sum_exp(shifted + negatives)
        return -total / len(positives) if positives else 0.0

    return _sample_means(features, temperature, loss, normalize)


def weighted(weight_of, features, *, temperature, normalize=True):
    """-sum_j w_ij log softmax(s_i)_j / sum_j w_ij, with w = weight_of(sample, other sample)."""

    def loss(sample, _, similarity):
        weights = {row: weight_of(sample, row[0]) for row in similarity}
        if not sum(weights.values()):
            return 0.0
        log_denominator = log_sum_exp(list(similarity.values()))
        total = sum(weights[row] * (similarity[row] - log_denominator) for row in similarity)
        return -total / sum(weights.values())

    return _sample_means(features, temperature, loss, normalize)


def soft(targets, features, *, temperature, normalize=True):
    targets = np.asarray(targets, np.float64)
    return weighted(
        lambda one, other: float(targets[one] @ targets[other]),
        features,
        temperature=temperature,
        normalize=normalize,
    )


def per_label(labels, features, *, temperature):
    classes = label_sets(labels, len(features))

    def loss(sample, _, similarity):
        log_denominator = log_sum_exp(list(similarity.values()))
        losses = []
        for label in classes[sample]:
            positives = [similarity[row] for row in similarity if label in classes[row[0]]]
            if positives:
                losses.append(log_denominator - math.fsum(positives) / len(positives))
        return math.fsum(losses) / len(losses) if losses else 0.0

    return _sample_means(features, temperature, loss)


def balanced(labels, features, centers, *, temperature):
    centers = normalized(centers)
    rows = normalized(features)

    def loss(sample, view, similarity):
        by_class = {label: [] for label in range(len(centers))}
        for row, s in similarity.items():
            by_class[labels[row[0]]].append(s)
        for label, center in enumerate(centers):
            by_class[label].append(float(rows[sample, view] @ center) / temperature)
        log_means = [log_sum_exp(values) - math.log(len(values)) for values in by_class.values()]
        positives = by_class[labels[sample]]
        return log_sum_exp(log_means) - math.fsum(positives) / len(positives)

    return _sample_means(features, temperature, loss)


def parametric(
    labels, logits, features, *, temperature, alpha, beta, gamma, label_smoothing, log_prior
):
    num_views = np.shape(features)[1]
    logits = np.asarray(logits, np.float64) + (0 if log_prior is None else np.asarray(log_prior))
    if logits.ndim == 2:
        logits = np.repeat(logits[:, None], num_views, axis=1)

    def loss(sample, view, similarity):
        return _parametric_anchor(
            logits[sample, view],
            labels[sample],
            [(labels[row[0]], s) for row, s in similarity.items()],
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            label_smoothing=label_smoothing,
        )

    return _sample_means(features, temperature, loss)


def contrast_set_parametric(
    labels, logits, features, contrast_labels, contrast, *, temperature, **options
):
    """The mean over the views of features [N, V, D] with the contrast set [M, D]."""
    rows, others = normalized(features), normalized(contrast)
    losses = np.zeros(len(rows))
    for sample, view in np.ndindex(rows.shape[:2]):
        similarities = [float(rows[sample, view] @ other) / temperature for other in others]
        losses[sample] += (
            _parametric_anchor(
                np.asarray(logits, np.float64)[sample, view],
                labels[sample],
                list(zip(contrast_labels, similarities, strict=True)),
                **options,
            )
            / rows.shape[1]
        )
    return losses


def _parametric_anchor(scores, own, rows, *, alpha, beta, gamma, label_smoothing):
    """One anchor with class scores, its class, and (class, similarity) of its contrast rows."""
    in_denominator = list(scores)
    if gamma:
        in_denominator += [s + math.log(gamma) for _, s in rows]
    log_denominator = log_sum_exp(in_denominator)
    total = weight = 0.0
    for label, score in enumerate(scores):
        target = label_smoothing / len(scores) + (1 - label_smoothing) * (label == own)
        total += beta * target * (score - log_denominator)
        weight += beta * target
    for label, s in rows:
        if label == own:
            total += alpha * (s - log_denominator)
            weight += alpha
    return -total / weight if weight else 0.0
