"""Stages do not inherit from one another, and config.gin of version 0.1 is still understood."""

import re

import pytest

from supcon_tf import config
from supcon_tf.errors import UserError

FILE = "digits/supcon.gin"

OLD = """
from __gin__ import dynamic_registration
import keras
from supcon_tf.data import batches
from supcon_tf.data import corrupted
from supcon_tf import optimizers
from supcon_tf.data import views
from supcon_tf.stages import linear
from supcon_tf.stages import pretrain
from supcon_tf.stages import robustness

batches.training_batches.samples_per_class = 2
linear.run.augmentation = @views.simclr
linear.run.batches = @linear/batches.training_batches
linear.run.schedule = @linear/optimizers.warmup_schedule
linear/optimizers.warmup_schedule.decay = 'none'
optimizers.warmup_schedule.scale_by_batch = False
pretrain.run.batches = @batches.training_batches
robustness.run.corrupted = @corrupted.on_the_fly
views.Preprocessing.whitening = 'measure'
views.simclr.strength = 0.25

# Defaults, where the caller does not give another value:
# ==============================================================================
# optimizers.warmup_schedule.decay_rate = 0.1
"""


@pytest.mark.parametrize("scope", ["linear", "finetune"])
@pytest.mark.parametrize(
    ("name", "value", "default"),
    [
        ("keras.optimizers.SGD.nesterov", "True", "False"),
        ("keras.optimizers.SGD.clipnorm", "1.0", "None"),
        ("optimizers.warmup_schedule.scale_by_batch", "False", "True"),
        ("optimizers.warmup_schedule.decay_rate", "0.5", "0.1"),
        ("pipeline.training_batches.mixing", "@mixing.mixup", "None"),
        ("pipeline.training_batches.samples_per_class", "8", "None"),
        ("views.simclr.warp_probability", "0.5", "0.0"),
    ],
)
def test_a_setting_of_pretraining_is_not_a_default_of_other_stages(scope, name, value, default):
    values = config.parameter_values(config.parse([FILE], [f"{name} = {value}"]))
    assert values[name] == value
    assert values[f"{scope}/{name}"] == default
    assert config.bound_value(f"{scope}/{name}") == eval(default)


def test_a_macro_sets_all_stages():
    config.parse([FILE], ["STRENGTH = 0.7"])
    for scope in ("", "linear/", "finetune/"):
        assert config.bound_value(f"{scope}views.simclr.strength") == 0.7


def test_an_old_config_is_read_with_the_values_it_had(tmp_path):
    file = tmp_path / "config.gin"
    file.write_text(OLD)
    values = config.parameter_values(config.parse([str(file)], []))
    assert values["pipeline.training_batches.samples_per_class"] == "2"
    assert values["robustness.run.corrupted"] == "@corruptions.on_the_fly"
    assert values["views.Preprocessing.normalization"] == "'measure'"
    # Values that linear inherited.
    assert values["linear/pipeline.training_batches.samples_per_class"] == "2"
    assert values["linear/views.simclr.strength"] == "0.25"
    assert values["linear/optimizers.warmup_schedule.scale_by_batch"] == "False"
    assert values["linear/optimizers.warmup_schedule.decay_rate"] == "0.1"
    assert values["linear/optimizers.warmup_schedule.decay"] == "'none'"


def test_an_old_run_is_compared_by_its_values(tmp_path):
    file = tmp_path / "config.gin"
    file.write_text(OLD)
    before = config.read_text(file)
    after = config.parse([str(file)], ["linear/views.simclr.strength = 0.5"])
    assert config.changed_setting(before, config.parse([str(file)], []), ignored=()) is None
    assert config.changed_setting(before, after, ignored=()) == (
        "linear/views.simclr.strength = 0.25 instead of 0.5"
    )


def test_a_run_from_before_the_heads_were_named_may_resume():
    after = config.parse(["digits/supcon_memory.gin"], [])
    lines = after.splitlines(keepends=True)
    before = "".join(line for line in lines if not re.search(r"_head = .*_head", line))
    assert len(before.splitlines()) == len(lines) - 7
    assert config.changed_setting(before, after, ignored=()) is None
    changed = after.replace("classification_head = @models.cl", "classification_head = @other.cl")
    assert "classification_head = None" in config.changed_setting(before, changed, ignored=())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        ("pretrain.run.epochs = 3  # é".encode("latin-1"), "is not UTF-8 text \\(byte 27\\)"),
        ("pretrain.run.epochs = 3".encode("utf-16"), "is not UTF-8 text"),
    ],
)
def test_a_gin_file_that_is_not_text_is_rejected(content, says, tmp_path):
    file = tmp_path / "mine.gin"
    file.write_bytes(content)
    with pytest.raises(UserError, match=says):
        config.parse([str(file)], [])


def test_a_byte_order_mark_is_skipped(tmp_path):
    file = tmp_path / "mine.gin"
    file.write_bytes(b"\xef\xbb\xbfinclude 'digits/supcon.gin'\npretrain.run.epochs = 3\n")
    config.parse([str(file)], [])
    assert config.bound_value("pretrain.run.epochs") == 3


def test_a_directory_is_rejected_as_gin_file(tmp_path):
    with pytest.raises(UserError, match="is a directory"):
        config.parse([str(tmp_path)], [])
