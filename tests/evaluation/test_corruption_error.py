"""Mean corruption errors against sums over the severities."""

import json

import numpy as np
import pytest

from supcon_tf.data.imagenet_c import CORRUPTIONS, EXTRA_CORRUPTIONS
from supcon_tf.errors import UserError
from supcon_tf.evaluation import mean_corruption_error, read_baseline
from supcon_tf.evaluation.corruption_error import ALEXNET
from supcon_tf.run_dir import RunDir


def random_errors(names=CORRUPTIONS, seed=0):
    generator = np.random.default_rng(seed)
    return {name: generator.uniform(0.5, 1, 5).tolist() for name in names}


def constant_errors(value=0.5):
    return dict.fromkeys(CORRUPTIONS, value)


def loop(errors, baseline, clean=0.0, clean_of_baseline=0.0):
    """100 sum_s (E_s,c - E_clean) / sum_s (B_s,c - B_clean) for each of the 15."""
    percent = {}
    for name in CORRUPTIONS:
        above = below = 0.0
        for severity in range(5):
            above += errors[name][severity] - clean
            below += baseline[name][severity] - clean_of_baseline
        percent[name] = 100 * above / below
    return percent


def test_alexnet_against_itself_is_one_hundred():
    errors = {name: ALEXNET[name] for name in CORRUPTIONS}
    result = mean_corruption_error(errors, clean_error=ALEXNET["clean"])
    assert (result.mce, result.relative_mce) == (100.0, 100.0)
    assert set(result.corruption_errors.values()) == {100.0}
    assert set(result.relative_corruption_errors.values()) == {100.0}


def test_equals_the_sums_over_severities():
    errors, baseline = random_errors(), random_errors(seed=1)
    means = {name: sum(values) / 5 for name, values in baseline.items()}
    result = mean_corruption_error(errors, clean_error=0.2, baseline={**means, "clean": 0.3})
    assert result.corruption_errors == pytest.approx(loop(errors, baseline))
    assert result.mce == pytest.approx(sum(loop(errors, baseline).values()) / 15)
    relative = loop(errors, baseline, 0.2, 0.3)
    assert result.relative_corruption_errors == pytest.approx(relative)
    assert result.relative_mce == pytest.approx(sum(relative.values()) / 15)


def test_five_errors_and_their_mean_give_the_same():
    errors = random_errors()
    means = {name: float(np.mean(values)) for name, values in errors.items()}
    assert mean_corruption_error(means) == mean_corruption_error(errors)


def test_without_the_clean_error_there_is_no_relative_one():
    result = mean_corruption_error(random_errors())
    assert result.relative_mce is None
    assert result.relative_corruption_errors is None


def test_extra_corruptions_are_reported_but_do_not_enter_the_mean():
    errors = random_errors()
    alone = mean_corruption_error(errors)
    result = mean_corruption_error({**errors, **random_errors(EXTRA_CORRUPTIONS)})
    assert result.mce == alone.mce
    assert set(result.mean_errors) - set(alone.mean_errors) == set(EXTRA_CORRUPTIONS)
    # With a baseline that has them, they are also divided by its errors.
    baseline = {**constant_errors(0.5), "spatter": 0.8}
    result = mean_corruption_error({**constant_errors(0.25), "spatter": 0.2}, baseline=baseline)
    assert result.mce == 50
    assert result.corruption_errors["spatter"] == pytest.approx(25)


@pytest.mark.parametrize("missing", CORRUPTIONS)
def test_each_of_the_fifteen_corruptions_is_required(missing):
    errors = random_errors()
    del errors[missing]
    with pytest.raises(UserError, match=f"'{missing}' is missing"):
        mean_corruption_error(errors)
    with pytest.raises(UserError, match=f"baseline must have.*'{missing}' is missing"):
        mean_corruption_error(random_errors(), baseline=dict.fromkeys(errors, 0.5))


@pytest.mark.parametrize(
    "error", [-0.01, 1.01, float("nan"), [0.1, 0.2, 0.3, 0.4, 87.5], "low", {}]
)
def test_an_error_that_is_not_a_fraction_is_rejected(error):
    with pytest.raises(UserError, match=r"fog must have errors within \[0, 1\]"):
        mean_corruption_error({**constant_errors(), "fog": error})


@pytest.mark.parametrize("count", [0, 1, 4, 6])
def test_other_than_five_severities_are_rejected(count):
    with pytest.raises(UserError, match=f"fog must have .* 1 to 5, got {count}"):
        mean_corruption_error({**constant_errors(), "fog": [0.5] * count})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clean_error": 1.5}, r"clean_error must have errors within \[0, 1\]"),
        ({"baseline": "resnet"}, "'alexnet' or a mapping, got 'resnet'"),
        ({"baseline": {**constant_errors(), "fogg": 0.5}}, "baseline must be of .* got 'fogg'"),
        ({"baseline": {**constant_errors(), "fog": 0.0}}, "'fog' must be > 0.0, got 0.0"),
        ({"clean_error": 0.1, "baseline": constant_errors()}, "baseline must have 'clean'"),
        (
            {"clean_error": 0.1, "baseline": {**constant_errors(), "clean": 0.6}},
            "'gaussian_noise' must be > 0.6, got 0.5",
        ),
    ],
)
def test_invalid_baselines_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        mean_corruption_error(constant_errors(), **options)


def test_unknown_corruption_is_rejected():
    with pytest.raises(UserError, match=r"errors must be of .* got 'clean'"):
        mean_corruption_error({**constant_errors(), "clean": 0.1})


def test_errors_computed_by_hand():
    # 14 corruptions at 0.3 of 0.6; fog (0.1 + 0.2 + 0.3 + 0.4 + 0.5) / 5 = 0.3 of 0.4.
    errors = {**constant_errors(0.3), "fog": [0.1, 0.2, 0.3, 0.4, 0.5]}
    baseline = {**constant_errors(0.6), "fog": 0.4, "clean": 0.2}
    result = mean_corruption_error(errors, clean_error=0.1, baseline=baseline)
    assert result.corruption_errors["fog"] == pytest.approx(75)
    assert result.mce == pytest.approx((14 * 50 + 75) / 15)
    # (0.3 - 0.1) / (0.6 - 0.2) and (0.3 - 0.1) / (0.4 - 0.2)
    assert result.relative_mce == pytest.approx((14 * 50 + 100) / 15)


def test_a_file_is_a_baseline(tmp_path):
    file = tmp_path / "baseline.json"
    errors = random_errors()
    file.write_text(json.dumps({**errors, "clean": 0.25}))
    result = mean_corruption_error(errors, clean_error=0.25, baseline=read_baseline(file))
    assert (result.mce, result.relative_mce) == (100.0, 100.0)


def test_another_run_is_a_baseline(tmp_path):
    errors = random_errors()
    measured = {"errors": errors, "clean_error": 0.25, "severities": [1, 2, 3, 4, 5]}
    (tmp_path / "metrics.json").write_text(json.dumps({"robustness": measured}))
    assert read_baseline(tmp_path) == {**errors, "clean": 0.25}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"pretrain": {}}, "has no results of a robustness stage"),
        ({"robustness": {"errors": {}, "clean_error": 0, "severities": [1, 3]}}, r"the severities \[1, 3\]: a"),
    ],
)  # fmt: skip
def test_a_run_without_all_results_is_rejected_as_baseline(tmp_path, content, message):
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_baseline(tmp_path)


def test_a_changed_run_is_rejected_as_baseline(tmp_path):
    run_dir = RunDir(tmp_path)
    measured = {"errors": random_errors(), "clean_error": 0.25, "severities": [1, 2, 3, 4, 5]}
    run_dir.set_metrics("robustness", measured)
    text = run_dir.metrics_file.read_text()
    run_dir.metrics_file.write_text(text.replace("0.25", "0.24"))
    with pytest.raises(UserError, match=r"metrics\.json' is damaged"):
        read_baseline(tmp_path)


def test_missing_and_invalid_baseline_files_are_rejected(tmp_path):
    with pytest.raises(UserError, match="no baseline at"):
        read_baseline(tmp_path)
    (tmp_path / "text.json").write_text("no json")
    with pytest.raises(UserError, match=r"has no \{corruption: errors\}"):
        read_baseline(tmp_path / "text.json")
