"""What is installed."""

import configparser
import importlib
from pathlib import Path

from supcon_tf import cli

ROOT = Path(__file__).parent.parent


def test_every_package_is_listed_in_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    packages = {path.parent.relative_to(ROOT) for path in (ROOT / "supcon_tf").rglob("__init__.py")}
    assert listed == {".".join(path.parts) for path in packages} | {"supcon_tf.gin_configs"}


def test_every_command_has_a_console_script():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = dict(
        line.split(" = ")
        for line in setup["options.entry_points"]["console_scripts"].strip().split("\n")
    )
    commands = {
        path.stem
        for path in (ROOT / "supcon_tf").glob("*.py")
        if 'if __name__ == "__main__"' in path.read_text()
    }
    assert listed == {f"supcon-{name}": f"supcon_tf.{name}:run" for name in commands}
    for name in commands:
        module = importlib.import_module(f"supcon_tf.{name}")
        assert module.run.func is cli.run
        assert module.run.args == (module.main,)
