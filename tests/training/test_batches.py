"""Normalization constants of a run, and of encoders trained elsewhere."""

import json

import keras
import pytest

from supcon_tf import models
from supcon_tf.data import sources, views
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.training.batches import resolve_normalization

MEASURE = views.Preprocessing(8, normalization="measure")
PLAIN = keras.Sequential()
OWN = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
OTHER = ((-0.1, -0.2, -0.3), (0.7, 0.8, 0.9))


@pytest.fixture
def other(tmp_path):
    """The path of an encoder that was trained with measured constants."""
    run_dir = RunDir(tmp_path / "other")
    run_dir.root.mkdir()
    run_dir.set_normalization(*OTHER)
    return run_dir.root


def resolved(run_dir, **options):
    return resolve_normalization(run_dir, MEASURE, None, network=PLAIN, **options).normalization


def test_a_later_stage_uses_the_constants_of_its_run(tmp_path):
    run_dir = RunDir(tmp_path)
    run_dir.set_normalization(*OWN)
    assert resolved(run_dir, encoder=None) == OWN


def test_constants_of_another_encoder_do_not_replace_those_of_the_run(tmp_path, other):
    run_dir = RunDir(tmp_path)
    assert resolved(run_dir, encoder=other) == OTHER
    assert run_dir.normalization() is None


def test_a_warm_start_replaces_the_constants_of_the_run(tmp_path, other):
    run_dir = RunDir(tmp_path)
    run_dir.set_normalization(*OWN)
    assert resolved(run_dir, encoder=other, keep=True) == OTHER
    assert run_dir.normalization() == OTHER


@pytest.mark.parametrize("given", [None, OWN])
def test_constants_other_than_the_encoders_are_rejected(tmp_path, other, given):
    preprocessing = views.Preprocessing(8, normalization=given)
    with pytest.raises(UserError, match=r"was trained with .*normalization = .*: set it to these"):
        resolve_normalization(RunDir(tmp_path), preprocessing, None, network=PLAIN, encoder=other)
    same = views.Preprocessing(8, normalization=((-0.1, -0.2, -0.3004), (0.7, 0.8, 0.9)))
    kept = resolve_normalization(RunDir(tmp_path), same, None, network=PLAIN, encoder=other)
    assert kept == same


def test_constants_on_top_of_the_scaling_of_a_pretrained_encoder_are_rejected(tmp_path):
    network = keras.Sequential(
        [keras.Input((8, 8, 3)), models.InputScaling([1.0] * 3, [0.0] * 3), keras.layers.Flatten()]
    )
    nested = keras.Sequential([keras.Input((8, 8, 3)), network])
    for given in ("measure", OWN):
        preprocessing = views.Preprocessing(8, normalization=given)
        with pytest.raises(UserError, match="must be None for a pretrained encoder, which scales"):
            resolve_normalization(
                RunDir(tmp_path), preprocessing, None, network=nested, encoder=None
            )


def test_the_training_images_are_measured_once(tmp_path):
    run_dir, source = RunDir(tmp_path), sources.digits()
    first = resolve_normalization(run_dir, MEASURE, source, network=PLAIN, encoder=None)
    assert run_dir.normalization() == first.normalization
    assert resolved(run_dir, encoder=None) == first.normalization


def test_constants_of_version_0_1_are_read(tmp_path):
    run_dir = RunDir(tmp_path)
    means, deviations = OWN
    run_dir.old_normalization_file.write_text(
        json.dumps({"means": means, "deviations": deviations})
    )
    assert resolved(run_dir, encoder=None) == OWN
