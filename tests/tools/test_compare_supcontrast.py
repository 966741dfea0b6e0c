"""The comparison with a PyTorch loop: its parts that need no PyTorch."""

import json
import sys

import numpy as np
import pytest

from supcon_tf import models
from supcon_tf.errors import UserError
from supcon_tf.evaluation import projection_measures


def test_cosine_of_rates_ends_at_a_thousandth(tool):
    rates = tool("supcontrast_recipe").cosine_rates(0.5, 4)
    # cos(pi / 4), cos(pi / 2), cos(3 pi / 4), cos(pi).
    shares = (1 + np.array([0.5**0.5, 0, -(0.5**0.5), -1])) / 2
    np.testing.assert_allclose(rates, 0.0005 + (0.5 - 0.0005) * shares)


def test_statistics_of_equal_and_of_orthogonal_projections(tool):
    statistics = tool("supcontrast_recipe").statistics
    equal = statistics(np.tile(np.eye(5)[:1], (8, 1)))
    assert equal == pytest.approx({"mean cosine": 1, "effective rank": 1}, abs=1e-9)
    orthogonal = statistics(np.eye(5))
    assert orthogonal == pytest.approx({"mean cosine": 0, "effective rank": 5}, abs=1e-9)
    # Three of six pairs are equal.
    # Singular values sqrt(3) and 1.
    shares = np.array([3**0.5, 1]) / (3**0.5 + 1)
    expected = {"mean cosine": 0.5, "effective rank": np.exp(-(shares * np.log(shares)).sum())}
    assert statistics(np.eye(5)[[0, 0, 0, 1]]) == pytest.approx(expected, abs=1e-9)


def test_the_effective_rank_is_that_of_the_package(tool):
    rows = np.random.default_rng(0).normal(size=(30, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = projection_measures(rows[:, None])["effective_rank"]
    found = tool("supcontrast_recipe").statistics(rows)["effective rank"]
    assert found == pytest.approx(expected, rel=1e-9)


def test_each_factor_changes_its_part_of_the_model_only(tool):
    runs = tool("supcontrast_runs")

    def facts(layout):
        model = runs.build(layout, 1 / 16)
        parts = models.model_parts(model)
        names = {layer.name for layer in parts["encoder"].layers}
        weights = {variable.path: variable.numpy() for variable in model.trainable_variables}
        return {
            # Normal distributions reach beyond three deviations, truncated ones do not reach 2.3.
            "conv": max(np.abs(w / w.std()).max() for p, w in weights.items() if w.ndim == 4) > 3,
            # Kernels of a deviation of 0.01 reach further than a bound of 1 / sqrt(32).
            "kernel": weights["projection_head_dense1/kernel"].std() > 0.05,
            "bias": "projection_head_dense2/bias" in weights
            and bool(weights["projection_head_dense1/bias"].all()),
            "shortcut": "group1_block1_shortcut_conv" not in names,
            "zero gammas": not weights["group1_block1_bn2/gamma"].any(),
        }

    for name in ("pytorch", "released", *(f"only {factor}" for factor in runs.FACTORS)):
        layout = runs.LAYOUTS[name]
        assert facts(layout) == {factor: factor in layout for factor in facts(layout)}, name
    assert facts(runs.LAYOUTS["zero gammas"])["zero gammas"]


def test_names_of_the_peers_weights_are_translated(tool):
    our_path = tool("supcontrast_runs").our_path
    # The stem's convolution, normalisation, ReLU and pool are layers 0 to 3 of the encoder.
    assert our_path("0.0.weight") == "stem_conv/weight"
    assert our_path("0.1.bias") == "stem_bn/bias"
    assert our_path("0.4.conv1.weight") == "group1_block1_conv1/weight"
    assert our_path("0.10.shortcut.1.bias") == "group4_block1_shortcut_bn/bias"
    assert our_path("0.11.bn2.weight") == "group4_block2_bn2/weight"
    assert our_path("1.2.weight") == "projection_head_dense2/weight"


def result(knn):
    return {"losses": [0.6, 0.5], "knn": knn, "logistic": 0.3, "steps": {}}


def test_finished_runs_are_not_repeated(tool, tmp_path, monkeypatch, capsys):
    compare = tool("compare_supcontrast")
    calls = []

    def run(name, seed, args):
        calls.append((name, seed))
        return result(0.2 + 0.1 * seed)

    monkeypatch.setattr(compare, "run", run)
    # TensorFlow's threads are fixed once it has started.
    monkeypatch.setattr(compare, "limit_threads", lambda threads: None)

    def main(*arguments):
        common = ["--data_dir=/none", f"--work_dir={tmp_path}", "--contenders", "torch", "pytorch"]
        monkeypatch.setattr(sys, "argv", ["compare", *common, *arguments])
        compare.main()
        return capsys.readouterr().out

    main("--seeds", "0")
    assert calls == [("torch", 0), ("pytorch", 0)]
    shown = main("--seeds", "0", "1")
    assert calls[2:] == [("torch", 1), ("pytorch", 1)]
    assert (
        "| pytorch | 0.6000 (0.6000 0.6000) | 0.5000 (0.5000 0.5000) | 0.2500 (0.200 0.300)"
        in shown
    )
    assert json.loads((tmp_path / "torch_seed1.json").read_text())["settings"]["width"] == 0.25
    with pytest.raises(UserError, match=r"torch_seed0.json has other settings, .*: choose another"):
        main("--seeds", "0", "--width", "0.5")
