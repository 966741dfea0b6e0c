"""Settings of a stage that are out of range."""

import pytest

from supcon_tf.errors import UserError
from tests.fitting import training_config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 2.5}, "pretrain.run.epochs must be an integer >= 1, got 2.5"),
        ({"epochs": 0}, "pretrain.run.epochs must be an integer >= 1, got 0"),
        ({"seed": -1}, "pretrain.run.seed must be an integer >= 0, got -1"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"checkpoints_to_keep": 0}, "checkpoints_to_keep must be an integer >= 1, got 0"),
        ({"max_images": 0}, "pretrain.run.max_images must be an integer >= 1, got 0"),
        ({"snapshot_every": 0}, "snapshot_every must be an integer >= 1, got 0"),
        ({"precision": "float16"}, r"precision must be one of \(.*\), got 'float16'"),
        ({"weight_decay": -0.1}, "weight_decay must be a number >= 0, got -0.1"),
        ({"weight_decay": float("nan")}, "weight_decay must be a number >= 0, got nan"),
        ({"clip_norm": 0.0}, "clip_norm must be a number > 0, got 0.0"),
        ({"gradient_cache_chunk": 3}, "gradient_cache_chunk must divide batch_size = 8, got 3"),
    ],
)
def test_values_out_of_range_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        training_config(**{"epochs": 1, "batch_size": 8, **options})


def test_epochs_end_between_whole_steps():
    config = training_config(epochs=3, batch_size=4)
    assert [config.last_step(epoch, 10) for epoch in (1, 2, 3)] == [2, 5, 7]


@pytest.mark.parametrize(
    ("max_images", "epochs"), [(None, 5), (100, 5), (50, 5), (49, 4), (20, 2), (19, 1), (1, 1)]
)
def test_a_limit_of_images_leaves_whole_epochs_and_at_least_one(max_images, epochs, capsys):
    config = training_config(epochs=5, batch_size=4, max_images=max_images).limit_epochs(10)
    assert config.epochs == epochs
    said = f"pretrain: {epochs} of 5 epochs, since pretrain.run.max_images = {max_images}\n"
    assert capsys.readouterr().out == (said if epochs < 5 else "")
