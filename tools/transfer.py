"""Evaluates an encoder on the twelve sets of the transfer literature and prints one table.

Each set is a run of gin_configs/transfer/SET.gin in WORKDIR/SET: logistic regression on the
features of the frozen encoder. A finished run is not repeated, so the same command resumes after an
interruption. The sets must be prepared in TFDS; Birdsnap and FGVC Aircraft, which TFDS does not
have, need a folder of train/CLASS and test/CLASS. Any other set may have one, except VOC 2007, as
its images have several labels. The measure is that of the literature: top-1, the mean of the
classes' accuracies, or mean average precision.

examples:
  python tools/transfer.py --encoder=runs/supcon --workdir=runs/transfer
  python tools/transfer.py --encoder=encoder.keras --workdir=runs/transfer --set=pets --set=dtd
  python tools/transfer.py --encoder=runs/supcon --workdir=runs/transfer \\
      --root=birdsnap=/data/birdsnap --gin_param="sources.tfds.data_dir = '/data/tfds'"
"""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from tqdm import tqdm

from supcon_tf import cli, config
from supcon_tf.errors import UserError
from supcon_tf.files import expanded
from supcon_tf.run_dir import RunDir
from supcon_tf.studies.study import TrialFailed
from supcon_tf.study import train_in_subprocess

# Set -> its measure in metrics.json.
MEASURES = {
    "food101": "top_1",
    "cifar10": "top_1",
    "cifar100": "top_1",
    "birdsnap": "top_1",
    "sun397": "top_1",
    "cars196": "top_1",
    "aircraft": "mean_per_class",
    "voc2007": "mean_average_precision",
    "dtd": "top_1",
    "pets": "mean_per_class",
    "caltech101": "mean_per_class",
    "flowers102": "mean_per_class",
}


def settings_of(encoder: Path) -> list[str]:
    """Size and normalisation of the images that a run has trained on; none for a `.keras` file."""
    if not encoder.exists():
        raise UserError(f"no encoder {str(encoder)!r}: give a run directory or a .keras file")
    if not encoder.is_dir():
        return []
    values = config.parameter_values(config.parse([str(RunDir(encoder).config)], []), macros=True)
    names = ("views.Preprocessing.image_px", "views.Preprocessing.normalization")
    return [f"{name} = {values[name]}" for name in names if name in values]


def evaluate(name: str, workdir: Path, bindings: Sequence[str]) -> float | str:
    """Runs the linear stage of a set and returns its measure, or why it has none."""
    try:
        train_in_subprocess(
            [f"transfer/{name}.gin"], bindings, workdir / name, None, os.cpu_count() or 1
        )
    except TrialFailed as failure:
        return str(failure)
    return float(RunDir(workdir / name).metrics()["linear"][MEASURES[name]])


def table(results: dict[str, float | str]) -> str:
    """A row per set, and the mean of all if none is missing."""
    rows = ["| set | measure | result |", "| --- | --- | --- |"]
    for name, result in results.items():
        shown = result if isinstance(result, str) else f"{result:.4f}"
        rows.append(f"| {name} | {MEASURES[name].replace('_', ' ')} | {shown} |")
    values = [result for result in results.values() if not isinstance(result, str)]
    if len(values) == len(results) > 1:
        rows.append(f"| mean | | {sum(values) / len(values):.4f} |")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the tool."""
    args = cli.new_flags()
    flags.DEFINE_string("encoder", None, "a run directory or a .keras file", flag_values=args)
    flags.DEFINE_string("workdir", None, "DIR: where the runs go", flag_values=args)
    flags.DEFINE_multi_enum("set", list(MEASURES), list(MEASURES), "default: all", flag_values=args)
    flags.DEFINE_multi_string("root", [], "SET=DIR: folder of a set", flag_values=args)
    flags.DEFINE_multi_string("gin_param", [], "a setting of all runs", flag_values=args)
    cli.parse(args, argv, __doc__)
    if not args.encoder or not args.workdir:
        raise UserError("--encoder and --workdir are needed")
    roots = dict(root.split("=", 1) if "=" in root else (root, "") for root in args.root)
    if wrong := [name for name, folder in roots.items() if name not in MEASURES or not folder]:
        raise UserError(f"--root must be SET=DIR with a set of {list(MEASURES)}, got {wrong[0]!r}")
    if "voc2007" in roots:
        raise UserError("--root must not be of voc2007: a folder has one label per image")
    for name, folder in roots.items():
        if not all((expanded(folder) / split).is_dir() for split in ("train", "test")):
            raise UserError(
                f"--root={name} must be a folder of train/CLASS and test/CLASS, got {folder!r}"
            )
    workdir = expanded(args.workdir)
    encoder = expanded(args.encoder).resolve()
    bindings_of_encoder = [*settings_of(encoder), f"linear.run.encoder = {str(encoder)!r}"]
    workdir.mkdir(parents=True, exist_ok=True)
    results: dict[str, float | str] = {}
    for name in tqdm(args.set, unit="set"):
        bindings = [*bindings_of_encoder, *args.gin_param]
        if name in roots:
            root = str(expanded(roots[name]))
            bindings += ["SOURCE = @sources.folder()", f"sources.folder.root = {root!r}"]
        results[name] = evaluate(name, workdir, bindings)
    print(table(results))
    if failed := [name for name, result in results.items() if isinstance(result, str)]:
        raise UserError(f"{len(failed)} of {len(results)} sets have no result, see the table")


if __name__ == "__main__":
    cli.run(main)
