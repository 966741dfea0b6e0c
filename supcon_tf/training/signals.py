"""Signals during training: the step is finished and saved before the run stops."""

import os
import signal
import socket
import threading
from types import FrameType
from typing import Any, Self

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")
SAVING = "SIGUSR1"


class Signals:
    """A context in which signals are noted, to be handled between two steps.

    SIGINT, SIGTERM and SIGHUP set `stop`; a second one ends the process at once. SIGUSR1 sets
    `save`. Ignored signals, as SIGHUP under nohup, stay ignored. Does nothing outside of the main
    thread, as Python cannot handle signals there.

    Attributes:
      stop: the first signal that stops the run; None for none.
      save: whether a checkpoint was asked for.
    """

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        self.save = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for name in (*STOPPING, SAVING):
            # Windows has not all of them.
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._note)
        self._received, self._sent = socket.socketpair()
        self._sent.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._sent.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._end_at_second, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            self._sent.close()

    def _note(self, number: int, _: FrameType | None) -> None:
        if signal.Signals(number).name == SAVING:
            self.save = True
        else:
            self.stop = self.stop or signal.Signals(number)

    def _end_at_second(self) -> None:
        """Ends the process at the second signal, also while a step keeps Python waiting."""
        count = 0
        with self._received:
            # Python sends the number of each signal, and nothing when the other end is closed.
            while received := self._received.recv(1):
                number = received[0]
                count += signal.Signals(number).name in STOPPING
                if count == 2:
                    os._exit(128 + number)
