"""The model output and the kind of labels that each loss takes."""

import keras
import pytest

from supcon_tf import losses
from supcon_tf.errors import UserError
from supcon_tf.losses import loss_input, loss_labels


@pytest.mark.parametrize(
    ("loss", "output", "labels"),
    [
        (losses.SupConLoss(), "projection", "any"),
        (losses.SimCLRLoss(), "projection", "none"),
        (losses.NPairsLoss(), "projection", "any"),
        (losses.SuNCEtLoss(), "projection", "any"),
        (losses.TripletLoss(), "projection", "any"),
        (losses.SemiSupervisedLoss(), "projection", "single"),
        (
            losses.SemiSupervisedLoss(unlabelled=None, labelled=losses.CrossEntropyLoss()),
            "logits",
            "single",
        ),
        (losses.SwAVLoss(), "prototypes", "none"),
        (losses.CrossEntropyLoss(), "logits", "single"),
        (losses.LargeMarginSoftmaxLoss(), "logits", "single"),
        (losses.BinaryCrossEntropyLoss(), "logits", "multi"),
        (keras.losses.CategoricalCrossentropy(from_logits=True), "logits", "single"),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), "logits", "single"),
        (keras.losses.BinaryCrossentropy(from_logits=True), "logits", "multi"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_loss_names_its_input_and_its_labels(loss, output, labels):
    assert loss_input(loss) == output
    assert loss_labels(loss) == labels


def test_a_custom_loss_names_its_input_in_an_attribute():
    class CustomLoss(keras.losses.Loss):
        input = "logits"

    assert loss_input(CustomLoss()) == "logits"
    assert loss_labels(CustomLoss()) == "any"


@pytest.mark.parametrize("function", [loss_input, loss_labels])
@pytest.mark.parametrize("loss", [keras.losses.MeanSquaredError(), "crossentropy"])
def test_an_unknown_loss_is_rejected(function, loss):
    with pytest.raises(UserError, match=r"unknown loss '(mean_squared_error|crossentropy)'"):
        function(loss)


def test_parts_with_different_inputs_are_rejected():
    with pytest.raises(UserError, match=r"same output, got \['logits', 'projection'\]"):
        losses.SemiSupervisedLoss(labelled=losses.CrossEntropyLoss())
