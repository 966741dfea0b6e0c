"""Checkpoints on disk: complete or not there, each with the checksums of its files."""

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.files import sync
from supcon_tf.json_files import read_json, sha256, write_json

# A directory per checkpoint; before version 0.2.0, files without checksums.
_NAME = re.compile(r"ckpt-(\d+)(\.index)?")
_STATE = "state.json"
_VARIABLES = "variables"


class CheckpointFiles:
    """The recent checkpoints in a directory, each with the state of its run.

    Args:
      directory: the directory, made when the first checkpoint is saved.
      keep: number of checkpoints to keep.
      advice: what to do if none is intact.
    """

    def __init__(self, directory: Path, keep: int, *, advice: str = ""):
        self.directory = directory
        self._keep, self._advice = keep, advice

    def save(self, checkpoint: tf.train.Checkpoint, step: int, state: dict[str, Any]) -> None:
        """Saves a checkpoint, then removes old ones and the remains of interrupted ones.

        Raises:
          UserError: it cannot be written; the earlier checkpoints are unchanged.
        """
        partial, complete = self.directory / "partial", self.directory / f"ckpt-{step}"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            checkpoint.write(str(partial / _VARIABLES))
            checksums = {file.name: sha256(file) for file in sorted(partial.iterdir())}
            state = {**state, "step": step, "sha256": checksums}
            write_json(partial / _STATE, {**state, "checksum": _checksum(state)})
            for file in (*partial.iterdir(), partial):
                sync(file)
            if complete.exists():
                shutil.rmtree(complete)
            partial.rename(complete)
            sync(self.directory)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise UserError(
                f"cannot save a checkpoint in {str(self.directory)!r}: {_reason(error)}; when "
                "there is space and permission, the same command continues from the last checkpoint"
            ) from error
        self._remove_old(step)

    def restore(self, checkpoint: tf.train.Checkpoint) -> dict[str, Any] | None:
        """Restores the newest intact checkpoint and says which newer ones are damaged.

        Returns:
          Its state, {} for one of an older version, or None if there is no checkpoint.

        Raises:
          UserError: there are checkpoints, but none is intact.
        """
        damaged = []
        for path in self._newest_first():
            try:
                state = _checked_state(path)
                prefix = str(path.with_suffix("") if path.suffix else path / _VARIABLES)
                checkpoint.restore(prefix).assert_consumed()
            except (UserError, OSError, tf.errors.OpError) as error:
                damaged.append(f"{str(path)!r} is damaged ({_reason(error)})")
                continue
            for problem in damaged:
                print(f"{problem}: the one before it is used", flush=True)
            return state
        if not damaged and not self._has_remains():
            return None
        raise self._none_is_intact(damaged)

    def check(self) -> None:
        """Checks the newest checkpoint, if there is one, without restoring it.

        Raises:
          UserError: it is damaged.
        """
        for path in self._newest_first()[:1]:
            try:
                _checked_state(path)
            except (UserError, OSError) as error:
                raise self._none_is_intact([f"{str(path)!r} is damaged ({error})"]) from None

    def states(self) -> Iterator[dict[str, Any]]:
        """The states of the intact checkpoints, newest first."""
        for path in self._newest_first():
            with contextlib.suppress(UserError, OSError):
                yield _checked_state(path)

    def _none_is_intact(self, damaged: list[str]) -> UserError:
        return UserError(
            f"no checkpoint in {str(self.directory)!r} is intact: "
            f"{'; '.join(damaged) or 'only parts are there'}; copy one there, or {self._advice}"
        )

    def _newest_first(self) -> list[Path]:
        found = self.directory.iterdir() if self.directory.is_dir() else ()
        return sorted(filter(_step, found), key=_step, reverse=True)

    def _has_remains(self) -> bool:
        """Whether files of checkpoints are there, other than of an interrupted one."""
        return any(not path.match("*_temp") for path in self.directory.glob("ckpt-*"))

    def _remove_old(self, step: int) -> None:
        # Checkpoints of later steps are damaged ones that were passed over.
        names = [path.stem for path in self._newest_first() if _step(path) <= step]
        kept = list(dict.fromkeys(names))[: self._keep]
        for path in [*self.directory.glob("ckpt-*"), self.directory / "checkpoint"]:
            name, _, is_old = path.name.partition(".")
            if name not in kept or (is_old and name == f"ckpt-{step}"):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _step(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else 0


def _checked_state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint whose files have the right checksums.

    Raises:
      UserError: names the first file that does not, or that is missing.
    """
    if path.suffix:
        return {}  # TensorFlow's own checksums have to do.
    state = read_json(path / _STATE)
    if not state:
        raise UserError(f"no {_STATE}")
    if state.pop("checksum", None) != _checksum(state):
        raise UserError(f"{_STATE} has changed")
    for name, expected in state["sha256"].items():
        if not (path / name).is_file():
            raise UserError(f"no {name}")
        if sha256(path / name) != expected:
            raise UserError(f"{name} has changed")
    return state


def _checksum(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = error.message if isinstance(error, tf.errors.OpError) else str(error)
    return message.splitlines()[0].split(" [Op:")[0]
