"""What gin files of strangers may import and call."""

import sys
from pathlib import Path

import pytest

from supcon_tf import evaluate, train
from supcon_tf.config import check_untrusted, parse
from supcon_tf.errors import UserError

SHIPPED = sorted(Path("gin_configs").glob("*/*.gin"))


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A gin file that imports a module, and the file that this module would write."""
    written = tmp_path / "written"
    (tmp_path / "module_of_stranger.py").write_text(f"open({str(written)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "module_of_stranger", raising=False)
    file = tmp_path / "run" / "config.gin"
    file.parent.mkdir()
    file.write_text("import module_of_stranger\ninclude 'digits/supcon.gin'\n")
    return file, written


def test_evaluate_does_not_import_the_modules_of_a_strangers_run(stranger):
    file, written = stranger
    with pytest.raises(UserError, match=r"imports 'module_of_stranger', which can run any code: "):
        evaluate.main([f"--workdir={file.parent}"])
    assert not written.exists()
    # The module is imported, and the run has no model.
    with pytest.raises(UserError, match="no SavedModel"):
        evaluate.main([f"--workdir={file.parent}", "--trust"])
    assert written.exists()


def test_print_config_imports_no_module_of_other_packages(stranger, capsys):
    file, written = stranger
    with pytest.raises(UserError, match="--print_config does not import 'module_of_stranger'"):
        train.main([f"--gin_file={file}", "--print_config"])
    assert not written.exists()
    train.main([f"--gin_file={file}", "--print_config", "--trust"])
    assert written.exists()
    assert "import module_of_stranger" in capsys.readouterr().out


def test_train_names_the_modules_of_other_packages(stranger, capsys):
    file, _ = stranger
    with pytest.raises(UserError, match="--workdir is needed"):
        train.main([f"--gin_file={file}"])
    assert "the gin files import module_of_stranger, whose code runs" in capsys.readouterr().out


@pytest.mark.parametrize("file", SHIPPED, ids=str)
def test_shipped_files_need_no_trust(file):
    check_untrusted(file)


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        "from  os  import\tpath",
        "import os as keras",
        "from supcon_tf import cli",
        "import tensorflow\nimport subprocess",
        "a.b = @os.system()",
        "a.b = [{'c': (@x/keras.src.utils.file_utils.os.system(),)}]",
        "a.b = @keras.src.utils.file_utils.os.system()",
        "a.b = @keras.config.enable_unsafe_deserialization()",
        "a.b = @keras.utils.get_file()",
        "a.b = @keras.saving.load_model",
        "import tensorflow\na.b = @tensorflow.io.write_file()",
        "import tensorflow as tf\na.b = @tf.py_function()",
        "a.b = @losses.base.tf.io.write_file()",
        "a.b = @gin.singleton()",
        "a.b = @keras.layers.Lambda.from_config()",
        "a.b = @keras.layers.TFSMLayer()",
        "a.b = @keras.layers.deserialize()",
        "import supcon_tf.distribution\na.b = @supcon_tf.files.write_text()",
        "a.b = @module_that_is_nowhere.layers.x()",
        "a.b = @foo",
        "a:\n  b = @keras.utils.get_file()",
    ],
)
def test_code_in_a_strangers_file_is_refused(text, tmp_path):
    file = tmp_path / "config.gin"
    file.write_text(text)
    with pytest.raises(UserError, match=r"which can run any code: add --trust|two modules are"):
        check_untrusted(file)


def test_files_of_strangers_may_use_layers(tmp_path):
    file = tmp_path / "config.gin"
    file.write_text(
        "import tensorflow as tf\nimport keras_cv\n"
        "a.b = @keras.layers.Dense()\na.c = @keras_cv.layers.RandAugment()\n"
        "a.d = @tf.keras.optimizers.SGD()\na.e = @models.resnet()\n"
    )
    check_untrusted(file)


@pytest.mark.parametrize(
    "reference", ["keras.src.utils.file_utils.os.system", "losses.supcon.math.sqrt"]
)
def test_the_name_of_a_package_leads_to_no_other_package(reference):
    with pytest.raises(UserError, match=f"@{reference} is not a function or class of supcon_tf or"):
        parse(["digits/supcon.gin"], [f"pretrain.run.model = @{reference}()"])
