"""Fine-tunes every snapshot of some pretraining runs and draws accuracy against epochs.

The runs were pretrained with pretrain.run.snapshot_every, which left a model and the neighbours'
accuracy every so many epochs. Each snapshot is fine-tuned as its run's config.gin says, into
finetuned/EPOCH in the run's folder; what is there already is not done again, so that the same
command goes on after a kill. To the left the fine-tuned top-1, to the right that of the neighbours;
both of held-out images. The table says when each run first is as good as the first one at its best.

example:
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
    """Top-1 of the snapshot of an epoch after fine-tuning, which is done where it was not yet."""
    pretrained = RunDir(run)
    curve = pretrained.curve("pretrain")
    done = accuracy({"finetune": pretrained.metrics().get("finetune", {})})
    # The run went on with its last model itself, or with the best one on validation.
    if done is not None and epoch == curve[-1]["epoch"] and "validation_accuracy" not in curve[-1]:
        return done
    snapshot = pretrained.model("pretrain", epoch).resolve()
    settings = (
        "experiment.run.stages = ('finetune',)",
        f"finetune.run.encoder = '{snapshot}'",
    )
    folder = run / "finetuned" / f"{epoch:04d}"
    folder.parent.mkdir(exist_ok=True)
    return train_in_subprocess([str(run / "config.gin")], settings, folder, None, threads)


def snapshots(run: Path) -> list[int]:
    """The epochs that a run has models of."""
    files = RunDir(run).checkpoints("pretrain").glob("model_*.keras")
    numbers = [re.fullmatch(r"model_(\d+)", file.stem) for file in files]
    return sorted(int(number[1]) for number in numbers if number)


def by_neighbors(run: Path) -> Points:
    """kNN top-1 of the epochs where it was measured."""
    curve = RunDir(run).curve("pretrain")
    return {int(row["epoch"]): row["knn_top_1"] for row in curve if "knn_top_1" in row}


def plot(path: str, panels: dict[str, dict[str, Points]], title: str) -> None:
    """A panel for each kind of accuracy, a line for each run."""
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
    """Accuracies by epoch, "-" where there is none, and when a run reaches the first one's best."""
    aim = max(next(iter(lines.values())).values())
    epochs = sorted({epoch for points in lines.values() for epoch in points})
    rows = [f"{'':<28}" + "".join(f"{epoch:>8}" for epoch in epochs)]
    for name, points in lines.items():
        reached = [epoch for epoch, top_1 in points.items() if top_1 >= aim]
        when = f"{aim:.4f} at epoch {reached[0]}" if reached else f"never {aim:.4f}"
        cells = [f"{points[epoch]:.4f}" if epoch in points else "-" for epoch in epochs]
        rows.append(f"{name:<28}" + "".join(f"{cell:>8}" for cell in cells) + f"   {when}")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the tool."""
    args = cli.new_flags()
    flags.DEFINE_multi_string("run", [], "NAME=DIR: a pretraining run", flag_values=args)
    flags.DEFINE_integer(
        "processes", 1, "fine-tunings at a time, default 1", lower_bound=1, flag_values=args
    )
    flags.DEFINE_string("output", "epochs.png", "picture to write", flag_values=args)
    flags.DEFINE_string("title", "", "text above it", flag_values=args)
    cli.parse(args, argv, __doc__)
    if not args.run:
        raise UserError("--run is needed, as NAME=DIR")
    try:
        import matplotlib
    except ImportError:
        raise UserError("the picture needs Matplotlib: pip install '.[bench]'") from None
    matplotlib.use("agg")
    runs = {}
    for run in args.run:
        name, separator, folder = run.partition("=")
        if not separator or not snapshots(Path(folder)) or not by_neighbors(Path(folder)):
            raise UserError(f"--run must be NAME=DIR, of a run with snapshots, got {run!r}")
        runs[name] = Path(folder)
    work = [(name, epoch) for name, folder in runs.items() for epoch in snapshots(folder)]
    threads = max(1, (os.cpu_count() or 1) // args.processes)

    def of(item: tuple[str, int]) -> float:
        name, epoch = item
        return fine_tuned(runs[name], epoch, threads=threads)

    with ThreadPoolExecutor(args.processes) as pool:
        found = dict(zip(work, tqdm(pool.map(of, work), total=len(work), unit="run"), strict=True))
    tuned = {name: {e: top_1 for (n, e), top_1 in found.items() if n == name} for name in runs}
    neighbors = {name: by_neighbors(folder) for name, folder in runs.items()}
    panels = {"fine-tuned": tuned, "kNN": neighbors}
    for kind, lines in panels.items():
        print(f"{kind}\n{table(lines)}\n")
    plot(args.output, panels, args.title)
    print(args.output)


if __name__ == "__main__":
    cli.run(main)
