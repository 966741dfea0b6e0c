"""The logging example of docs/runs.md, with stand-ins for wandb and mlflow."""

import re
import sys
import types
from pathlib import Path

import gin
import keras
import pytest

from supcon_tf import config

PAGE = Path(__file__).parents[2] / "docs" / "runs.md"


@pytest.fixture
def loggers(monkeypatch):
    """Stand-ins for the two packages; returns what was called."""
    calls = []

    def module(name, **members):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**members))
        return sys.modules[name]

    def recorded(name):
        return lambda **options: calls.append((name, options))

    class Logger(keras.callbacks.Callback):
        pass

    module("wandb", init=recorded("init"), finish=recorded("finish"))
    module("wandb.integration")
    module("wandb.integration.keras", WandbMetricsLogger=Logger)
    module(
        "mlflow",
        keras=types.SimpleNamespace(MlflowCallback=Logger),
        end_run=recorded("end_run"),
        set_experiment=lambda name: calls.append(("set_experiment", name)),
        start_run=recorded("start_run"),
    )
    return calls


def test_the_example_logs_each_stage_as_a_run(loggers, tmp_path, monkeypatch):
    code, settings = re.findall(
        r"<!-- This example runs as a test. -->\n```(?:python)?\n(.*?)```",
        PAGE.read_text(),
        re.DOTALL,
    )
    (tmp_path / "my_logging.py").write_text(code)
    (tmp_path / "my_logging.gin").write_text(settings)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_logging", raising=False)
    for name in ("wandb_logger", "mlflow_logger"):
        (tmp_path / "my_logging.gin").write_text(settings.replace("wandb_logger", name))
        config.parse(["digits/supcon.gin", str(tmp_path / "my_logging.gin")], [])
        for stage in ("pretrain", "linear"):
            with gin.unlock_config():
                [callback] = gin.query_parameter(f"{stage}.run.callbacks")
            with gin.config_scope(stage):
                made = callback.scoped_configurable_fn()
            assert isinstance(made, keras.callbacks.Callback)
    assert loggers == [
        *(
            call
            for stage in ("pretrain", "linear")
            for call in (
                ("finish", {}),
                ("init", {
                    "project": "supcon", "group": "mine", "name": stage, "id": f"mine-{stage}",
                    "resume": "allow",
                }),
            )
        ),
        *(
            call
            for stage in ("pretrain", "linear")
            for call in (
                ("end_run", {}),
                ("set_experiment", "supcon"),
                ("start_run", {"run_name": f"mine-{stage}"}),
            )
        ),
    ]  # fmt: skip
    sys.modules.pop("my_logging")
