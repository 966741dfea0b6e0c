"""What gin files of strangers may import and call."""

import sys
from pathlib import Path

import pytest

from supcon_tf import evaluate, export, train
from supcon_tf.config import check_untrusted, parse
from supcon_tf.data.sources.tfds_builder import find_builder
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
        # Functions that a module imports, which write or remove files.
        "a.b = @pretrain.save_view_sheet()",
        "a.b = @study.write_study()",
        "a.b = @study._set_aside_other_run()",
        "a.b = @experiment.restore_curves()",
        "a.b = @robustness.expanded()",
        "a.b = @pretrain.run()",
        "import supcon_tf.data.sources as keras",
        # Layers that read a file, and what Keras builds from a dict.
        "a.b = @keras.layers.StringLookup()",
        "import tensorflow as tf\na.b = @tf.keras.layers.TextVectorization()",
        "keras.layers.Dense.activation = {'class_name': 'function', 'config': 'get_file'}",
        "a.b = [(1, {'x': {'class_name': 'TFSMLayer', 'config': {'filepath': '/x'}}})]",
        "a:\n  b = {'class_name': 'Lambda', 'config': {}}",
        "M = {'class_name': 'Lambda', 'config': {}}\na.b = %M",
        # Other ways to name a function.
        "a.b = @tensorflow.raw_ops.WriteFile()",
        "import tensorflow as tf\na.b = @tf.io.gfile.rmtree()",
        "import tensorflow as tf\na.b = @tf.raw_ops.WriteFile()",
        "from tensorflow import io as losses\na.b = @losses.write_file()",
        "import keras.saving as layers\na.b = @layers.load_model()",
        "a.b = @keras.utils.get_source_inputs",
        "a.b = @gin.config.parse_config_file()",
        "a.b = {@keras.utils.get_file(): 1}",
        "include 'digits/supcon.gin'\nimport os",
        "a:\n  b = @keras.utils.get_file()",
    ],
)
def test_code_in_a_strangers_file_is_refused(text, tmp_path):
    file = tmp_path / "config.gin"
    file.write_text(text)
    with pytest.raises(UserError, match=r"which can run any code: add --trust|two modules are"):
        check_untrusted(file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sources.tfds.download = True", "sets download, which writes files anywhere"),
        ("YES = True\nx/sources.tfds.download = %YES", "sets download, which writes files"),
        ("sources.tfds:\n  cache_dir = '/x'", "sets cache_dir, which writes files"),
        ("include '../outside.gin'", "outside.gin' is outside of"),
        ("include 'inside.gin'", "outside.gin' is outside of"),
        ("a.b = (", "cannot be read"),
        ("a.b = {[1]: 2}", "cannot be read"),
        ("a.b = " + 400 * "[", "cannot be read"),
        ("a = 1 include 'x'", "cannot be read"),
        ("a.b = @\uff4beras.utils.get_file()", "cannot be read"),
        ("import \uff4fs", "cannot be read"),
    ],
)
def test_a_strangers_file_uses_no_files_elsewhere(text, says, tmp_path):
    (tmp_path / "outside.gin").write_text("a.b = 1")
    file = tmp_path / "run" / "config.gin"
    file.parent.mkdir()
    (file.parent / "inside.gin").write_text(f"include '{tmp_path}/outside.gin'")
    file.write_text(text)
    with pytest.raises(UserError, match=says) as raised:
        check_untrusted(file)
    assert "\n" not in str(raised.value)


def test_an_import_within_a_string_is_none(stranger):
    file, written = stranger
    text = "A = '''\nimport module_of_stranger as losses\n'''\nrobustness.run.baseline = %A\n"
    for more in ("", "losses.SupConLoss.x = 1\n"):
        file.write_text(f"include 'digits/supcon.gin'\n{text}{more}")
        with pytest.raises(UserError):
            evaluate.main([f"--workdir={file.parent}"])
        assert not written.exists()


@pytest.mark.parametrize("link", ["robustness", "export/x", "metrics.json", "run.lock"])
def test_evaluate_follows_no_link_out_of_a_strangers_run(link, tmp_path):
    run, target = tmp_path / "run", tmp_path / "elsewhere"
    (run / link).parent.mkdir(parents=True)
    target.mkdir()
    (run / link).symlink_to(target)
    (run / "config.gin").write_text("include 'digits/supcon.gin'")
    with pytest.raises(UserError, match=f"{link}' is a link out of .*: add --trust"):
        evaluate.main([f"--workdir={run}"])


@pytest.mark.parametrize("link", ["export", "export/labels.txt"])
def test_export_copies_nothing_from_outside_of_the_run(link, tmp_path):
    run, private = tmp_path / "run", tmp_path / "private"
    private.mkdir()
    (private / "saved_model.pb").write_text("")
    (run / link).parent.mkdir(parents=True)
    (run / link).symlink_to(private if link == "export" else private / "saved_model.pb")
    if link != "export":
        (run / "export" / "saved_model.pb").write_text("")
    with pytest.raises(UserError, match=f"{link}' is a link out of"):
        export.main([f"--workdir={run}", f"--output={tmp_path / 'copy'}"])
    assert not (tmp_path / "copy").exists()


def test_sets_of_other_packages_are_not_fetched():
    with pytest.raises(UserError, match=r"must be a set of TFDS, got 'huggingface:mnist'"):
        find_builder("huggingface:mnist", None, setting="sources.tfds")
    with pytest.raises(UserError, match="when community datasets are disabled"):
        find_builder("kaggle:mnist", None, setting="sources.tfds")


def test_files_of_strangers_may_name_a_pretrained_encoder(tmp_path):
    file = tmp_path / "config.gin"
    file.write_text(
        "models.contrastive_model.encoder = @models.pretrained()\n"
        "models.pretrained.name = 'efficientnet_lite0'\nmodels.pretrained.weights = 'a.pth'\n"
    )
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
    "reference", ["keras.src.utils.file_utils.os.system", "losses.parametric_supcon.math.sqrt"]
)
def test_the_name_of_a_package_leads_to_no_other_package(reference):
    with pytest.raises(UserError, match=f"@{reference} is not a function or class of supcon_tf or"):
        parse(["digits/supcon.gin"], [f"pretrain.run.model = @{reference}()"])
