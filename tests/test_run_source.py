"""The images of a finished run: of its last stage, in the splits that it recorded."""

from pathlib import Path

from supcon_tf.data import sources
from supcon_tf.run_dir import RunDir
from supcon_tf.run_source import run_source
from supcon_tf.training.run_data import run_images

CONFIG = """from __gin__ import dynamic_registration
from supcon_tf.data import sources
from supcon_tf.stages import finetune
from supcon_tf.stages import linear
from supcon_tf.stages import pretrain

pretrain.run.source = @sources.digits()
linear.run.source = @sources.folder()
finetune.run.source = @sources.digits()
sources.folder.root = {root!r}
sources.folder.check_images = False
"""


def test_images_are_those_of_the_last_finished_stage_in_the_splits_it_recorded(tmp_path):
    root = tmp_path / "images"
    for number in range(40):
        file = root / ("bright" if number % 2 else "dark") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"image %d" % number)
    run_dir = RunDir(tmp_path / "run")
    run_dir.root.mkdir()
    run_dir.config.write_text(CONFIG.format(root=str(root)))
    # Another test split than that of the config; then an image is removed and others are added.
    recorded = sources.folder(str(root), check_images=False, test_share=0.5)
    run_images(run_dir, "linear", recorded)
    for stage in ("pretrain", "linear"):
        run_dir.set_metrics(stage, {"loss": 1.0})
    Path(recorded.test.paths[0]).unlink()
    for number in range(40, 60):
        (root / "dark" / f"{number}.png").write_bytes(b"image %d" % number)
    source = run_source(run_dir, trust=False)
    assert set(source.test.paths) == set(recorded.test.paths[1:])
    assert len(source.train.paths) == 39 + 20 - len(source.test.paths)
