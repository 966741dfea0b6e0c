"""Temperature scaling against a search over temperatures."""

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.evaluation import fit_temperature, negative_log_likelihood, scale_probabilities
from supcon_tf.evaluation.temperature import (
    HIGHEST,
    LOWEST,
    TEMPERATURE_FILE,
    read_temperature,
    write_temperature,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, size=(2000, 5))


def softmax(logits):
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def drawn_labels(probabilities):
    """A label of each row, drawn with its probabilities."""
    return (RNG.uniform(size=(len(probabilities), 1)) > probabilities.cumsum(axis=1)).sum(axis=1)


def test_scaling_equals_the_softmax_of_divided_logits():
    for temperature in (0.3, 1.0, 4.0):
        scaled = scale_probabilities(softmax(LOGITS), temperature)
        np.testing.assert_allclose(scaled, softmax(LOGITS / temperature), rtol=1e-9)
    # A probability of zero has a large negative logit: it stays near zero.
    assert scale_probabilities(np.eye(3), 2.0)[0, 1] == pytest.approx(2.0**-63)


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 3.0])
def test_the_fitted_temperature_has_the_lowest_likelihood_loss(true_temperature):
    labels = drawn_labels(softmax(LOGITS / true_temperature))
    probabilities = softmax(LOGITS)
    temperature = fit_temperature(probabilities, labels)
    assert temperature == pytest.approx(true_temperature, rel=0.1)
    best = negative_log_likelihood(scale_probabilities(probabilities, temperature), labels)
    for factor in (0.2, 0.9, 0.999, 1.001, 1.1, 5):
        other = scale_probabilities(probabilities, temperature * factor)
        assert negative_log_likelihood(other, labels) > best
    # float32 probabilities, as models give them, have nearly the same temperature.
    rounded = fit_temperature(probabilities.astype(np.float32), labels)
    assert rounded == pytest.approx(temperature, rel=1e-4)


def test_the_temperature_is_limited():
    probabilities = softmax(LOGITS)
    assert fit_temperature(probabilities, LOGITS.argmax(axis=1)) == pytest.approx(LOWEST)
    assert fit_temperature(probabilities, LOGITS.argmin(axis=1)) == pytest.approx(HIGHEST)
    # Any temperature is as good for constant and for certain and correct probabilities.
    for constant in (np.full((2, 4), 0.25), np.eye(2)):
        assert LOWEST <= fit_temperature(constant, [0, 1]) <= HIGHEST


@pytest.mark.parametrize("temperature", [0, -1.0, np.nan, "2"])
def test_an_invalid_temperature_is_rejected(temperature):
    with pytest.raises(UserError, match="temperature must be a number > 0, got"):
        scale_probabilities(np.eye(2), temperature)


def test_logits_are_rejected():
    with pytest.raises(UserError, match="apply a softmax"):
        fit_temperature(LOGITS, np.zeros(2000, int))
    with pytest.raises(UserError, match="apply a softmax"):
        scale_probabilities(LOGITS, 2.0)


def test_an_export_keeps_its_temperature_to_the_last_digit(tmp_path):
    write_temperature(tmp_path, 1 / 3)
    assert read_temperature(tmp_path) == 1 / 3


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"temperature": "1"}', '{"temperature": 0}', "\xff"]
)
def test_a_damaged_temperature_is_rejected(tmp_path, content):
    (tmp_path / TEMPERATURE_FILE).write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"temperature.json' is damaged .*export the model again"):
        read_temperature(tmp_path)
