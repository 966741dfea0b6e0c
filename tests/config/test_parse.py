"""Gin files: where they are found, what they may import, and the resolved text."""

import sys

import pytest

from supcon_tf import train
from supcon_tf.config import parameter_values, parse
from supcon_tf.errors import UserError


def test_print_config_shows_the_settings_and_writes_nothing(tmp_path, capsys):
    train.main(
        [
            "--gin_file=digits/supcon.gin",
            "--gin_param=losses.SupConLoss.temperature = 0.25",
            f"--workdir={tmp_path / 'run'}",
            "--print_config",
        ]
    )
    shown = capsys.readouterr().out
    assert "losses.SupConLoss.temperature = 0.25" in shown
    assert "models.resnet.depth = 18" in shown
    assert not (tmp_path / "run").exists()


def test_the_resolved_text_parses_to_itself(tmp_path):
    resolved = parse(["digits/supcon.gin"], ["pretrain.run.epochs = 7"])
    saved = tmp_path / "config.gin"
    saved.write_text(resolved)
    assert parse([str(saved)], []) == resolved


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from encoders_of_mine import small_ones as encoders", "encoders.small"),
        ("from encoders_of_mine import small_ones", "small_ones.small"),
        ("import encoders_of_mine.small_ones", "encoders_of_mine.small_ones.small"),
        ("import encoders_of_mine.small_ones as mine  # a remark", "mine.small"),
    ],
)
def test_a_file_may_import_the_users_modules(line, name, tmp_path, monkeypatch):
    package = tmp_path / "encoders_of_mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "small_ones.py").write_text("def small(depth=1):\n    return depth\n")
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "mine.gin"
    file.write_text(f"{line}\ninclude 'digits/supcon.gin'\n{name}.depth = 2\n")
    shown = parse([str(file)], [f"models.contrastive_model.encoder = @{name}()"])
    assert "small.depth = 2" in shown
    with pytest.raises(ValueError, match=f"{name} has no parameter 'dept'; did you mean 'depth'"):
        parse([str(file)], [f"{name}.dept = 2"])


@pytest.mark.parametrize(
    ("module", "package"),
    [("keras_cv", r"'supcon-tf\[keras-cv\]'"), ("encoders_missing", "the package it is in")],
)
def test_missing_module_names_the_package_to_install(module, package, tmp_path, monkeypatch):
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name == module:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, module, raising=False)
    file = tmp_path / "mine.gin"
    file.write_text(f"import {module}\ninclude 'digits/supcon.gin'\n")
    with pytest.raises(UserError, match=f"^no module '{module}' to import: pip install {package}$"):
        parse([str(file)], [])


def test_included_files_are_found_relative_to_the_including_one(tmp_path, monkeypatch):
    own = tmp_path / "gin_configs" / "mine"
    own.mkdir(parents=True)
    (own / "base.gin").write_text('include "digits/supcon.gin"  # the shipped one\n')
    (own / "run.gin").write_text("include 'mine/base.gin'\npretrain.run.epochs = 7\n")
    (own / "loop.gin").write_text("include 'mine/loop.gin'\n")
    expected = parse(["digits/supcon.gin"], ["pretrain.run.epochs = 7"])
    for folder in (tmp_path, own):
        monkeypatch.chdir(folder)
        assert parse([str(own / "run.gin")], []) == expected
    with pytest.raises(ValueError, match="includes itself"):
        parse([str(own / "loop.gin")], [])


def test_the_resolved_text_has_the_defaults():
    shown = parameter_values(parse(["digits/supcon.gin"], ["losses.SupConLoss.temperature = 0.2"]))
    assert shown["losses.SupConLoss.temperature"] == "0.2"
    assert shown["losses.SupConLoss.summation"] == "'outside'"
    assert shown["models.contrastive_model.projection"] == "(128, 128)"
    assert shown["pretrain.run.seed"] == "0"
