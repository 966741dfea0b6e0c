"""Logistic regression on features, against scikit-learn's pipeline by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from supcon_tf.errors import UserError
from supcon_tf.evaluation import logistic_regression as module
from supcon_tf.evaluation.logistic_regression import STRENGTHS, logistic_regression

SCALES = np.array([20.0, 50.0, 50.0, 30.0])


def blobs(per_class, classes=3, seed=0, noise=1.5):
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(9).normal(size=(classes, len(SCALES)))
    labels = np.repeat(np.arange(classes), per_class)
    points = centers[labels] + noise * rng.normal(size=(len(labels), len(SCALES)))
    order = rng.permutation(len(labels))
    return (points[order] * SCALES + 5.0).astype("float32"), labels[order]


def scaled_by(known, features):
    centered = known.astype(float) - known.mean(axis=0, dtype=float)
    return (features - known.mean(axis=0, dtype=float)) / np.sqrt(np.mean(centered**2))


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_classifier_is_scikit_learns_with_the_strength_of_the_least_validation_loss(classes):
    features, labels = blobs(20, classes, noise=3.0)
    validation = blobs(30, classes, seed=1, noise=3.0)
    fitted = logistic_regression(features, labels, num_classes=classes, validation=validation)

    scaled, scaled_validation = scaled_by(features, features), scaled_by(features, validation[0])
    by_hand = [
        LogisticRegression(C=strength, max_iter=1000)
        .fit(scaled, labels)
        .predict_proba(scaled_validation)
        for strength in STRENGTHS
    ]
    losses = [log_loss(validation[1], probabilities) for probabilities in by_hand]
    best = int(np.argmin(losses))
    assert 0 < best < len(STRENGTHS) - 1
    assert fitted.strength == STRENGTHS[best]
    assert fitted.validation_loss == pytest.approx(losses[best], rel=1e-3)
    got = softmax(validation[0] @ fitted.kernel + fitted.bias)
    np.testing.assert_allclose(got, by_hand[best], atol=2e-3)


def test_shares_of_the_training_images_choose_the_strength():
    features, labels = blobs(20)
    fitted = logistic_regression(features, labels, num_classes=3)
    # Five shares, each with a fifth of each class, and each image in one of them.
    shares = np.stack(list(module._shares(labels, 0)))
    assert (shares.sum(axis=0) == 1).all()
    assert [np.bincount(labels[share]).tolist() for share in shares] == [[4, 4, 4]] * 5
    losses = []
    for strength in STRENGTHS:
        total = 0.0
        for share in shares:
            # As in the module, scaled by all training images.
            scaled = scaled_by(features, features)
            model = LogisticRegression(C=strength, max_iter=1000)
            model.fit(scaled[~share], labels[~share])
            probabilities = model.predict_proba(scaled[share])
            total += log_loss(labels[share], probabilities, normalize=False)
        losses.append(total / len(labels))
    assert fitted.strength == STRENGTHS[int(np.argmin(losses))]
    assert fitted.validation_loss == pytest.approx(min(losses), rel=1e-3)
    again = logistic_regression(features, labels, num_classes=3)
    np.testing.assert_array_equal(again.kernel, fitted.kernel)
    other = logistic_regression(features, labels, num_classes=3, seed=1)
    assert other.validation_loss != fitted.validation_loss


def test_constant_features_and_rare_classes_are_no_obstacle():
    features, labels = blobs(10)
    features[:, 0] = 7.0
    labels = np.where(labels == 2, 3, labels)  # Class 2 of 4 has no images.
    labels[0] = 4  # Class 4 has one.
    fitted = logistic_regression(features, labels, num_classes=5)
    np.testing.assert_allclose(fitted.kernel[0], 0, atol=1e-12)
    predicted = (features @ fitted.kernel + fitted.bias).argmax(axis=1)
    assert 2 not in predicted
    assert np.mean(predicted == labels) > 0.5


def test_one_image_of_each_class_is_fitted():
    fitted = logistic_regression(np.eye(3), np.arange(3), num_classes=3)
    assert (np.eye(3) @ fitted.kernel + fitted.bias).argmax(axis=1).tolist() == [0, 1, 2]
    assert fitted.strength == 1.0


def label_rows(images, seed):
    """Features, and rows of four overlapping classes; no image has the last one."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(images, len(SCALES)))
    weights = np.random.default_rng(9).normal(size=(len(SCALES), 3))
    logits = features @ weights + [0.0, -1.0, 1.0]
    known = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    rows = np.concatenate([known, np.zeros((images, 1))], axis=1)
    return features * SCALES + 5.0, rows


def sigmoids_by_hand(known, rows, others, strength):
    """The probabilities [n, 3] of the first three classes, each by its own model."""
    fits = [
        LogisticRegression(C=strength, max_iter=1000).fit(known, rows[:, label])
        for label in range(3)
    ]
    return np.stack([fit.predict_proba(others)[:, 1] for fit in fits], axis=1)


def sum_of_losses(rows, probabilities):
    """Over the images, of the mean of four binary cross-entropies; the last one is about 0."""
    each = [log_loss(rows[:, c], probabilities[:, c], normalize=False) for c in range(3)]
    return sum(each) / 4


@pytest.mark.parametrize("by", ["validation", "shares"])
def test_label_rows_are_fitted_class_by_class_with_one_strength(by):
    features, rows = label_rows(60, seed=0)
    scaled = scaled_by(features, features)
    if by == "validation":
        validation = label_rows(50, seed=1)
        parts = [(scaled, rows, scaled_by(features, validation[0]), validation[1])]
    else:
        validation = None
        shares = np.stack(list(module._shares(rows.astype(bool), 0)))
        assert (shares.sum(axis=0) == 1).all()
        assert shares.sum(axis=1).tolist() == [12] * 5
        parts = [(scaled[~held], rows[~held], scaled[held], rows[held]) for held in shares]
    fitted = logistic_regression(features, rows, num_classes=4, validation=validation)

    losses = []
    for strength in STRENGTHS:
        total = 0.0
        for known, labels, others, truth in parts:
            total += sum_of_losses(truth, sigmoids_by_hand(known, labels, others, strength))
        losses.append(total / sum(len(truth) for *_, truth in parts))
    best = int(np.argmin(losses))
    assert 0 < best < len(STRENGTHS) - 1
    assert fitted.strength == STRENGTHS[best]
    assert fitted.validation_loss == pytest.approx(losses[best], rel=1e-3)
    logits = features @ fitted.kernel + fitted.bias
    expected = sigmoids_by_hand(scaled, rows, scaled, STRENGTHS[best])
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, :3])), expected, atol=2e-3)
    np.testing.assert_array_equal(logits[:, 3], -30)
    assert fitted.kernel.dtype == fitted.bias.dtype == np.float32


def test_a_class_of_all_images_is_certain_and_integers_are_taken_too():
    features, rows = label_rows(60, seed=0)
    others, truth = label_rows(50, seed=1)
    fitted = logistic_regression(features, rows, num_classes=4, validation=(others, truth))
    inverted = logistic_regression(
        features, 1 - rows.astype(int), num_classes=4, validation=(others, 1 - truth)
    )
    np.testing.assert_array_equal((features @ inverted.kernel + inverted.bias)[:, 3], 30)
    assert inverted.strength == fitted.strength
    np.testing.assert_allclose(inverted.kernel, -fitted.kernel, rtol=0.02, atol=1e-4)


def test_the_only_images_of_a_class_are_always_fitted():
    fitted = logistic_regression(np.eye(3), np.eye(3), num_classes=3)
    assert fitted.strength == 1.0
    assert ((np.eye(3) @ fitted.kernel + fitted.bias).argmax(axis=1) == np.arange(3)).all()
    rows = np.zeros((12, 2), bool)
    rows[3, 0] = True
    rows[:, 1] = np.arange(12) != 7
    held = np.any(list(module._shares(rows, 0)), axis=0)
    assert np.flatnonzero(~held).tolist() == [3, 7]


def test_wrong_features_and_labels_are_rejected():
    features, labels = blobs(4)
    for wrong, message in (
        ((features[:, 0], labels), r"features must be \[n, D\]"),
        ((features, labels + 1), r"labels must be in 0 \.\.\. 2, got 1 to 3"),
        ((features, labels.astype(float)), "labels integers"),
        ((features * np.nan, labels), "must be finite"),
        ((features, labels * 0), "two classes or more"),
        ((features, np.eye(2)[labels % 2]), r"rows \[n, 3\], got shapes \(12, 4\) and \(12, 2\)"),
        ((features, np.eye(3)[labels] / 2), "must have 0 and 1, got 0.5"),
        ((features, np.ones((12, 3))), "that some images have and others do not"),
    ):
        with pytest.raises(UserError, match=message):
            logistic_regression(*wrong, num_classes=3)
    with pytest.raises(UserError, match=r"got shapes \(12,\) and \(12, 3\)"):
        logistic_regression(
            features, np.eye(3)[labels], num_classes=3, validation=(features, labels)
        )
