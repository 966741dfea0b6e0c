"""What is installed."""

import configparser
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_package_is_listed_in_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    packages = {path.parent.relative_to(ROOT) for path in (ROOT / "supcon_tf").rglob("__init__.py")}
    assert listed == {".".join(path.parts) for path in packages} | {"supcon_tf.gin_configs"}
