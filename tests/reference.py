"""Losses as slow float64 loops, written from the equations one anchor at a time."""

import math

import numpy as np


def label_sets(labels, num_samples):
    """Each sample's labels as a set, from None, class numbers or multi-hot rows."""
    if labels is None:
        return [{index} for index in range(num_samples)]
    labels = np.asarray(labels)
    if labels.ndim == 1:
        return [{int(label)} for label in labels]
    return [set(np.flatnonzero(row > 0).tolist()) for row in labels]


def normalized(features):
    features = np.asarray(features, np.float64)
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.where(norms == 0, 1.0, norms)


def log_sum_exp(values):
    largest = max(values)
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))


def anchor_sets(anchor, classes, num_views, positives_cap):
    """Rows (sample, view) of the kept positives and of the negatives of one anchor row."""
    sample = anchor[0]
    positives, negatives = [], []
    other_samples_kept = 0
    for other in range(len(classes)):
        shares = bool(classes[sample] & classes[other])
        if shares and other != sample:
            other_samples_kept += 1
        for other_view in range(num_views):
            if (other, other_view) == anchor:
                continue
            if not shares:
                negatives.append((other, other_view))
            elif (
                positives_cap is None
                or other == sample
                or other_samples_kept <= positives_cap // num_views
            ):
                positives.append((other, other_view))
    return positives, negatives


def anchor_loss(similarity, positives, negatives, summation, denominator):
    """Eq. 2 or Eq. 3 for one anchor from {row: s_ij}: the loss, and its gradient {row: dL/ds_ij}."""
    gradient = dict.fromkeys(positives + negatives, 0.0)
    if not positives or (denominator == "only_negatives" and not negatives):
        return 0.0, gradient
    log_ratios, shares_of_denominator = {}, {}
    for positive in positives:
        rows = {
            "all": positives + negatives,
            "one_positive": [positive, *negatives],
            "only_negatives": negatives,
        }[denominator]
        log_denominator = log_sum_exp([similarity[row] for row in rows])
        log_ratios[positive] = similarity[positive] - log_denominator
        shares_of_denominator[positive] = {
            row: math.exp(similarity[row] - log_denominator) for row in rows
        }
    if summation == "outside":
        loss = -math.fsum(log_ratios.values()) / len(positives)
        weights = dict.fromkeys(positives, 1 / len(positives))
    else:
        total = log_sum_exp(list(log_ratios.values()))
        loss = math.log(len(positives)) - total
        weights = {row: math.exp(ratio - total) for row, ratio in log_ratios.items()}
    for positive, weight in weights.items():
        gradient[positive] -= weight
        for row, share in shares_of_denominator[positive].items():
            gradient[row] += weight * share
    return loss, gradient


def supcon(
    labels,
    features,
    *,
    temperature=0.1,
    summation="outside",
    denominator="all",
    positives_cap=None,
    anchors="all_views",
    scale_by_temperature=True,
    normalize=True,
):
    """Per-sample losses [N] of features [N, V, D], and the gradient [N, V, D] of their sum."""
    features = np.asarray(features, np.float64)
    num_samples, num_views = features.shape[:2]
    rows = normalized(features) if normalize else features
    classes = label_sets(labels, num_samples)
    num_anchor_views = 1 if anchors == "one_view" else num_views
    scale = temperature if scale_by_temperature else 1.0
    losses, gradient = np.zeros(num_samples), np.zeros_like(rows)
    for sample in range(num_samples):
        for view in range(num_anchor_views):
            anchor = (sample, view)
            positives, negatives = anchor_sets(anchor, classes, num_views, positives_cap)
            similarity = {
                row: float(rows[anchor] @ rows[row]) / temperature for row in positives + negatives
            }
            loss, slopes = anchor_loss(similarity, positives, negatives, summation, denominator)
            losses[sample] += loss * scale / num_anchor_views
            for row, slope in slopes.items():
                slope *= scale / num_anchor_views / temperature
                gradient[anchor] += slope * rows[row]
                gradient[row] += slope * rows[anchor]
    return losses, through_normalization(gradient, features) if normalize else gradient


def through_normalization(gradient, features):
    """Gradient wrt the unnormalised rows: the part orthogonal to the row, divided by its norm."""
    rows = normalized(features)
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    along = np.sum(gradient * rows, axis=-1, keepdims=True)
    return (gradient - along * rows) / norms


def finite_differences(function, at, step=1e-6):
    """Central differences of a scalar function of a float64 array."""
    at = np.array(at, np.float64)
    result = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        moved = at.copy()
        moved[index] += step
        above = function(moved)
        moved[index] -= 2 * step
        result[index] = (above - function(moved)) / (2 * step)
    return result


def suncet(labels, features, *, temperature=0.1, label_smoothing=0.0, normalize=True):
    """Per-sample losses [N] of features [N, V, D], and the gradient [N, V, D] of their sum."""
    features = np.asarray(features, np.float64)
    num_samples, num_views = features.shape[:2]
    rows = normalized(features) if normalize else features
    labels = None if labels is None else np.asarray(labels)
    probabilities = None
    if labels is not None and labels.ndim == 2 and (label_smoothing or labels.dtype.kind == "f"):
        probabilities = labels.astype(np.float64)
        spread = probabilities.mean(axis=1, keepdims=True)
        probabilities = (1 - label_smoothing) * probabilities + label_smoothing * spread
    classes = label_sets(labels, num_samples)
    losses, gradient = np.zeros(num_samples), np.zeros_like(rows)
    for sample in range(num_samples):
        for view in range(num_views):
            anchor = (sample, view)
            positives, negatives = anchor_sets(anchor, classes, num_views, None)
            others = positives + negatives
            similarity = {row: float(rows[anchor] @ rows[row]) / temperature for row in others}
            # Each term: its weight, and the membership of each row in its class.
            terms = [(1.0, dict.fromkeys(positives, 1.0))]
            if probabilities is not None:
                terms = [
                    (weight, {row: probabilities[row[0], c] for row in others})
                    for c, weight in enumerate(probabilities[sample])
                ]
            for weight, memberships in terms:
                loss, slopes = membership_loss(similarity, memberships)
                losses[sample] += weight * loss / num_views
                for row, slope in slopes.items():
                    slope *= weight / num_views / temperature
                    gradient[anchor] += slope * rows[row]
                    gradient[row] += slope * rows[anchor]
    return losses, through_normalization(gradient, features) if normalize else gradient


def membership_loss(similarity, memberships):
    """-log sum_a softmax(s)_a m_a from {row: s_a} and {row: m_a}, and its gradient {row: dL/ds_a}.

    Both are zero if no row has a membership.
    """
    inside = {
        row: similarity[row] + math.log(membership)
        for row, membership in memberships.items()
        if membership > 0
    }
    if not inside:
        return 0.0, {}
    log_all, log_inside = log_sum_exp(list(similarity.values())), log_sum_exp(list(inside.values()))
    gradient = {row: math.exp(value - log_all) for row, value in similarity.items()}
    for row, value in inside.items():
        gradient[row] -= math.exp(value - log_inside)
    return log_all - log_inside, gradient


def psi(theta, margin):
    """psi of an angle, from its piecewise definition."""
    piece = min(int(theta * margin / math.pi), margin - 1)
    return (-1) ** piece * math.cos(margin * theta) - 2 * piece


def large_margin_softmax(labels, embeddings, kernel, *, margin=4, annealing=0.0):
    """Losses [N] of embeddings [N, D] and class vectors, the columns of [D, C]."""
    embeddings = np.asarray(embeddings, np.float64)
    kernel = np.asarray(kernel, np.float64)
    losses = np.zeros(len(embeddings))
    for sample, (label, embedding) in enumerate(zip(labels, embeddings, strict=True)):
        scores = []
        for number, vector in enumerate(kernel.T):
            length = math.sqrt(math.fsum(vector**2)) * math.sqrt(math.fsum(embedding**2))
            cosine = math.fsum(vector * embedding) / length
            if number == label:
                theta = math.acos(max(-1.0, min(1.0, cosine)))
                cosine = (annealing * cosine + psi(theta, margin)) / (1 + annealing)
            scores.append(length * cosine)
        losses[sample] = log_sum_exp(scores) - scores[label]
    return losses


def contrast_set_supcon_loss(
    labels,
    features,
    contrast_labels,
    contrast,
    *,
    contrast_mask=None,
    temperature=0.1,
    summation="outside",
    denominator="all",
    scale_by_temperature=True,
    normalize=True,
):
    """Losses [N] of features [N, V, D] with the contrast set [M, D], and the gradients of the sum."""
    features, contrast = np.asarray(features, np.float64), np.asarray(contrast, np.float64)
    rows, others = (
        (normalized(features), normalized(contrast)) if normalize else (features, contrast)
    )
    classes = label_sets(labels, len(features))
    contrast_classes = label_sets(contrast_labels, len(contrast))
    present = [m for m in range(len(contrast)) if contrast_mask is None or contrast_mask[m]]
    num_views = features.shape[1]
    scale = (temperature if scale_by_temperature else 1.0) / num_views
    losses = np.zeros(len(features))
    row_gradient, contrast_gradient = np.zeros_like(rows), np.zeros_like(others)
    for sample, view in np.ndindex(features.shape[:2]):
        positives = [m for m in present if classes[sample] & contrast_classes[m]]
        negatives = [m for m in present if not classes[sample] & contrast_classes[m]]
        similarity = {m: float(rows[sample, view] @ others[m]) / temperature for m in present}
        loss, slopes = anchor_loss(similarity, positives, negatives, summation, denominator)
        losses[sample] += loss * scale
        for m, slope in slopes.items():
            row_gradient[sample, view] += slope * scale / temperature * others[m]
            contrast_gradient[m] += slope * scale / temperature * rows[sample, view]
    if normalize:
        row_gradient = through_normalization(row_gradient, features)
        contrast_gradient = through_normalization(contrast_gradient, contrast)
    return losses, row_gradient, contrast_gradient


def sinkhorn(scores, *, epsilon=0.05, rounds=3):
    """Codes [B, K] of scores [B, K], normalising one row or column at a time."""
    codes = np.exp(np.asarray(scores, np.float64) / epsilon)
    num_samples, num_prototypes = codes.shape
    codes /= codes.sum()
    for _ in range(rounds):
        for prototype in range(num_prototypes):
            codes[:, prototype] /= codes[:, prototype].sum() * num_prototypes
        for sample in range(num_samples):
            codes[sample] /= codes[sample].sum() * num_samples
    return codes * num_samples


def swav(scores, codes, *, temperature=0.1):
    """Losses [B] of scores [B, V, K] and codes [B, A, K], and the gradient of their sum."""
    scores, codes = np.asarray(scores, np.float64), np.asarray(codes, np.float64)
    num_samples, num_crops, num_prototypes = scores.shape
    losses, gradient = np.zeros(num_samples), np.zeros_like(scores)
    for sample in range(num_samples):
        for assigned in range(codes.shape[1]):
            for crop in range(num_crops):
                if crop == assigned:
                    continue
                logits = scores[sample, crop] / temperature
                log_all = log_sum_exp(logits.tolist())
                share = 1 / (codes.shape[1] * (num_crops - 1))
                for prototype in range(num_prototypes):
                    code = codes[sample, assigned, prototype]
                    losses[sample] -= share * code * (logits[prototype] - log_all)
                    probability = math.exp(logits[prototype] - log_all)
                    gradient[sample, crop, prototype] += share * (probability - code) / temperature
    return losses, gradient


def triplets(distances, positives, negatives, mining, margin):
    """The triplets (positive, negative, weight) of an anchor from its {row: distance}."""
    if not positives or not negatives:
        return []
    if mining == "hard":
        pairs = [(max(positives, key=distances.get), min(negatives, key=distances.get))]
    elif mining == "semi_hard":
        pairs = []
        for positive in positives:
            farther = [row for row in negatives if distances[row] > distances[positive]]
            nearest = min(farther, key=distances.get) if farther else None
            pairs.append((positive, nearest or max(negatives, key=distances.get)))
    else:
        pairs = [(positive, negative) for positive in positives for negative in negatives]
    violated = [pair for pair in pairs if margin + distances[pair[0]] - distances[pair[1]] > 0]
    return [(*pair, 1 / len(pairs)) for pair in violated]


def triplet(labels, features, *, margin=0.2, mining="hard", normalize=True):
    """Per-sample losses [N] of features [N, V, D], and the gradient [N, V, D] of their sum."""
    features = np.asarray(features, np.float64)
    rows = normalized(features) if normalize else features
    num_samples, num_views = features.shape[:2]
    classes = label_sets(labels, num_samples)
    losses, gradient = np.zeros(num_samples), np.zeros_like(rows)
    for anchor in np.ndindex(num_samples, num_views):
        positives, negatives = anchor_sets(anchor, classes, num_views, None)
        distances = {
            row: math.fsum((rows[anchor] - rows[row]) ** 2) for row in positives + negatives
        }
        for positive, negative, weight in triplets(distances, positives, negatives, mining, margin):
            weight /= num_views
            losses[anchor[0]] += weight * (margin + distances[positive] - distances[negative])
            gradient[anchor] += 2 * weight * (rows[negative] - rows[positive])
            gradient[positive] += 2 * weight * (rows[positive] - rows[anchor])
            gradient[negative] += 2 * weight * (rows[anchor] - rows[negative])
    return losses, through_normalization(gradient, features) if normalize else gradient
