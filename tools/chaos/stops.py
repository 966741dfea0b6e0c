"""Cases of tools/chaos in which a run is killed, gets a signal, or is started twice."""

import signal
import time
from pathlib import Path

from cases import Chaos
from results import difference
from runs import VARIANTS, Ended, launch, start

# When a run is killed: the event, and which event of the kind it is.
KILLS = (
    "step 8",
    "before replacing ckpt-5",
    "before replacing metrics.json",
    "before replacing linear/last/ckpt-5",
    "before replacing export",
)
KILLS_OF_ONE_REPLICA = (
    "step 1",
    "step 14",
    "after replacing ckpt-5",
    "before replacing curves.json",
    "before replacing model.keras",
    "before replacing test_split.npz",
    "after replacing metrics.json",
    "before replacing report.html",
    "before replacing config.gin",
    "after replacing config.gin",
)


def kills(chaos: Chaos) -> None:
    """SIGKILL at a step, or before or after a file is replaced."""
    for variant in VARIANTS:
        if variant in ("folder", "table"):
            continue
        moments = KILLS + (KILLS_OF_ONE_REPLICA if variant == "one replica" else ())
        for moment in moments:

            def judge(
                folder: Path, variant: str = variant, moment: str = moment
            ) -> tuple[str, str]:
                whole, run = chaos.finished(variant), folder / "run"
                first = start(variant, run, chaos.images, event=f"SIGKILL {moment}")
                if first.code != -signal.SIGKILL:
                    return "not struck", f"exit code {first.code} {first.error[-200:]}"
                second = start(variant, run, chaos.images)
                if second.code:
                    return "lost", second.error[-300:]
                found = difference(whole, run)
                return ("lost", found) if found else ("identical", "")

            chaos.case("kill", f"{variant}, {moment}", judge)


def signals(chaos: Chaos) -> None:
    """A signal in a step: exit code, and steps that are done again."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        for step in (3, 8, 12):

            def judge(folder: Path, name: str = name, step: int = step) -> tuple[str, str]:
                whole, run = chaos.finished("one replica"), folder / "run"
                first = start("one replica", run, chaos.images, event=f"{name} step {step}")
                expected = 0 if name == "SIGUSR1" else 128 + signal.Signals[name]
                if first.code != expected:
                    return "lost", f"exit code {first.code}, {first.error[-200:]}"
                second = start("one replica", run, chaos.images)
                found = difference(whole, run)
                if second.code or found:
                    return "lost", second.error[-200:] + found
                told = first.output if name == "SIGUSR1" else first.error
                saved = step if step <= 10 else step - 10
                lost = 0 if f"step {saved}" in told else 1
                return "identical", f"exit code {first.code}, {lost} steps lost"

            chaos.case("signal", f"{name} at step {step}", judge)


def doubled(chaos: Chaos) -> None:
    """Two runs in one directory at once: the second is rejected, the first is not disturbed."""

    def judge(folder: Path) -> tuple[str, str]:
        whole, run = chaos.finished("one replica"), folder / "run"
        (first,) = launch("one replica", run, chaos.images)
        while first.poll() is None and not (run / "config.gin").exists():
            time.sleep(0.05)
        second = start(
            "one replica", run, chaos.images, extra=["--gin_param=pretrain.run.seed = 1"]
        )
        ended = Ended(first)
        if ended.code or not second.is_one_line or "in use by process" not in second.error:
            return "lost", ended.error[-200:] + second.error[-200:]
        found = difference(whole, run)
        return ("lost", found) if found else ("named", second.error.strip())

    for number in range(3):
        chaos.case("twice", f"attempt {number + 1}", judge)
