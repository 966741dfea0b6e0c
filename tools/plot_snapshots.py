"""Fine-tunes every snapshot of some pretraining runs and plots accuracy against epochs.

The runs need pretrain.run.snapshot_every, which saves a model and measures kNN top-1 every few
epochs. Each snapshot is fine-tuned with its run's config.gin, into finetuned/EPOCH in the run
directory. Finished fine-tunings are not repeated, so the same command resumes after an
interruption. The picture has the fine-tuned top-1 on the left and kNN top-1 on the right, both on
the test split. The tables also show the epoch when each run reaches the first run's best.

examples:
  python tools/plot_snapshots.py --run="SimCLR=runs/semi/SimCLR" --output=epochs.png \\
      --run="SimCLR + SuNCEt=runs/semi/SuNCEt"
"""

import itertools
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import flags
from tqdm import tqdm

from supcon_tf import cli
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.studies.study import accuracy
from supcon_tf.study import train_in_subprocess

Points = dict[int, float]  # Epoch -> top-1.


def fine_tuned(run: Path, epoch: int, *, threads: int) -> float:
    """Fine-tunes the snapshot of an epoch, unless that is done already, and returns its top-1."""
    pretrained = RunDir(run)
    curve = pretrained.curve("pretrain")
    done = accuracy({"finetune": pretrained.metrics().get("finetune", {})})
    # The run has already fine-tuned its last model, unless it kept the best one on validation.
    if done is not None and epoch == curve[-1]["epoch"] and "validation_accuracy" not in curve[-1]:
        return done
    snapshot = pretrained.model("pretrain", epoch).resolve()
    settings = (
        "experiment.run.stages = ('finetune',)",
        f"finetune.run.encoder = '{snapshot}'",
    )
    folder = run / "finetuned" / f"{epoch:04d}"
    folder.parent.mkdir(exist_ok=True)
    return train_in_subprocess([str(pretrained.config)], settings, folder, None, threads)


def snapshots(run: Path) -> list[int]:
    """The epochs whose model a run has saved."""
    files = RunDir(run).checkpoints("pretrain").glob("model_*.keras")
    numbers = [re.fullmatch(r"model_(\d+)", file.stem) for file in files]
    return sorted(int(number[1]) for number in numbers if number)


def knn_top_1(run: Path) -> Points:
    """kNN top-1 by epoch, where it was measured."""
    curve = RunDir(run).curve("pretrain")
    return {int(row["epoch"]): row["knn_top_1"] for row in curve if "knn_top_1" in row}


def plot(path: str, panels: dict[str, dict[str, Points]], title: str) -> None:
    """Draws a panel per kind of accuracy, with a line per run."""
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, len(panels), figsize=(10, 4), layout="constrained")
    for axis, (kind, lines) in zip(axes, panels.items(), strict=True):
        for marker, (name, points) in zip(itertools.cycle("os^Dvx"), lines.items()):
            axis.plot(list(points), [100 * y for y in points.values()], marker=marker, label=name)
        axis.set_title(kind)
        axis.set_xlabel("epochs of pretraining")
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axis.set_ylabel("top-1, %")
        axis.grid(alpha=0.3)
    names = axes[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=4)
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=120)


def table(lines: dict[str, Points]) -> str:
    """Accuracies by epoch, and the epoch when each run reaches the first run's best."""
    best = max(next(iter(lines.values())).values())
    epochs = sorted({epoch for points in lines.values() for epoch in points})
    rows = [f"{'':<28}" + "".join(f"{epoch:>8}" for epoch in epochs)]
    for name, points in lines.items():
        reached = [epoch for epoch, top_1 in points.items() if top_1 >= best]
        when = f"{best:.4f} at epoch {reached[0]}" if reached else f"never {best:.4f}"
        cells = [f"{points[epoch]:.4f}" if epoch in points else "-" for epoch in epochs]
        rows.append(f"{name:<28}" + "".join(f"{cell:>8}" for cell in cells) + f"   {when}")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the tool."""
    args = cli.new_flags()
    flags.DEFINE_multi_string(
        "run", [], "NAME=DIR: a line's name and its run directory", flag_values=args
    )
    flags.DEFINE_integer(
        "processes", 1, "fine-tunings at a time, default 1", lower_bound=1, flag_values=args
    )
    flags.DEFINE_string("output", "epochs.png", "picture to write", flag_values=args)
    flags.DEFINE_string("title", "", "title of the picture", flag_values=args)
    cli.parse(args, argv, __doc__)
    if not args.run:
        raise UserError("--run is needed, as NAME=DIR")
    try:
        import matplotlib
    except ImportError:
        raise UserError("this tool needs Matplotlib: pip install '.[bench]'") from None
    matplotlib.use("agg")
    runs = {}
    for run in args.run:
        name, separator, folder = run.partition("=")
        if not separator or not snapshots(Path(folder)) or not knn_top_1(Path(folder)):
            raise UserError(f"--run must be NAME=DIR, of a run with snapshots, got {run!r}")
        runs[name] = Path(folder)
    work = [(name, epoch) for name, folder in runs.items() for epoch in snapshots(folder)]
    threads = max(1, (os.cpu_count() or 1) // args.processes)

    def tune(item: tuple[str, int]) -> float:
        name, epoch = item
        return fine_tuned(runs[name], epoch, threads=threads)

    with ThreadPoolExecutor(args.processes) as pool:
        results = list(tqdm(pool.map(tune, work), total=len(work), unit="run"))
    tuned: dict[str, Points] = {name: {} for name in runs}
    for (name, epoch), top_1 in zip(work, results, strict=True):
        tuned[name][epoch] = top_1
    panels = {
        "fine-tuned": tuned,
        "kNN": {name: knn_top_1(folder) for name, folder in runs.items()},
    }
    for kind, lines in panels.items():
        print(f"{kind}\n{table(lines)}\n")
    plot(args.output, panels, args.title)
    print(args.output)


if __name__ == "__main__":
    cli.run(main)
