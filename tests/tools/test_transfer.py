"""The table of the transfer sets: which run gives which measure, and what a failed one shows."""

import pytest

from supcon_tf import config
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.studies.study import TrialFailed
from tools import transfer

RESULTS = {"top_1": 0.5, "mean_per_class": 0.4, "mean_average_precision": 0.3}


@pytest.fixture
def asked(monkeypatch):
    """The files and settings of the runs, which have results without training."""
    asked = []

    def train(files, bindings, folder, lock, threads):
        asked.append((files, list(bindings)))
        config.parse(files, bindings)
        if folder.name == "dtd":
            folder.with_name("dtd.log").write_text("reading\nerror: no such set\n")
            raise TrialFailed("dtd: exit code 2")
        folder.mkdir()
        RunDir(folder).set_metrics("linear", RESULTS)

    monkeypatch.setattr(transfer, "train_in_subprocess", train)
    return asked


def test_each_set_has_its_file_and_measure(asked, tmp_path, capsys):
    options = [f"--encoder={tmp_path}", f"--workdir={tmp_path / 'out'}"]
    transfer.main([*options, "--root=pets=/data/pets", "--gin_param=linear.run.seed = 3"])
    assert [files for files, _ in asked] == [[f"transfer/{name}.gin"] for name in transfer.MEASURES]
    common = ["linear.run.seed = 3", f"linear.run.encoder = '{tmp_path}'"]
    bindings = {files[0]: given for files, given in asked}
    assert bindings["transfer/dtd.gin"] == common
    root = ["SOURCE = @sources.folder()", "sources.folder.root = '/data/pets'"]
    assert bindings["transfer/pets.gin"] == [*common, *root]
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 + 12
    for row in (
        "| cifar10 | top 1 | 0.5000 |",
        "| pets | mean per class | 0.4000 |",
        "| voc2007 | mean average precision | 0.3000 |",
        "| dtd | top 1 | error: no such set |",
    ):
        assert row in rows


def test_the_mean_is_over_all_sets(asked, tmp_path, capsys):
    options = [f"--encoder={tmp_path}", f"--workdir={tmp_path / 'out'}"]
    transfer.main([*options, "--set=pets", "--set=cars196"])
    assert capsys.readouterr().out.splitlines()[-1] == "| mean | | 0.4500 |"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--encoder and --workdir are needed"),
        (["--encoder=a", "--workdir=b", "--root=mine=/data"], "--root must be SET=DIR .* 'mine'"),
        (["--encoder=a", "--workdir=b", "--root=pets"], "--root must be SET=DIR .* 'pets'"),
        (["--encoder=a", "--workdir=b", "--set=pet"], "pet"),
    ],
)
def test_wrong_options_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        transfer.main(options)
