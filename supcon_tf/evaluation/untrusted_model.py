"""Checks the graph of a SavedModel whose author is not trusted, without loading it."""

import re
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from supcon_tf.errors import UserError

# Operations that read or write files, run Python or other code, or use the network.
_UNSAFE = re.compile(
    r"File|Save|Restore|Checkpoint|Summary|Reader|ReadRecord|Record|Dataset|Iterator|Sql|LMDB|Lmdb|"
    r"PyFunc|Print|Debug|Dump|Remap|Rpc|RPC|Remote|Send|Recv|Collective|Distributed|Service|"
    r"TRTEngine|Custom|XlaCallModule|TPU|Delegate|DecodeProto|EncodeProto|ImportEvent|Abort"
)


def check_untrusted_model(folder: Path) -> None:
    """Checks that the functions of a SavedModel only compute.

    Raises:
      UserError: an operation that touches files, runs code or uses the network; a model of
        TensorFlow 1, whose functions are not listed; or a damaged file.
    """
    from tensorflow.python.saved_model.loader_impl import parse_saved_model

    trust = "add --trust if you trust the source of this model"
    try:
        # Several files may hold the graph. This reads the one that loading would read.
        graphs = parse_saved_model(str(folder)).meta_graphs
    except (OSError, DecodeError) as error:
        raise UserError(f"the SavedModel in {str(folder)!r} is damaged: {error}") from None
    for graph in graphs:
        functions = {each.signature.name: each for each in graph.graph_def.library.function}
        waiting = list(graph.object_graph_def.concrete_functions)
        if not waiting:
            raise UserError(
                f"the SavedModel in {str(folder)!r} is of TensorFlow 1 or has no functions: {trust}"
            )
        # Saving and restoring are functions too, which nothing calls but TensorFlow itself.
        called: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in called or name not in functions:
                continue
            called.add(name)
            for node in functions[name].node_def:
                if _UNSAFE.search(node.op) and node.op not in functions:
                    raise UserError(
                        f"the SavedModel in {str(folder)!r} has the operation {node.op}, which can "
                        f"use files, code or the network: {trust}"
                    )
                waiting += [node.op, *_functions_of(node)]


def _functions_of(node: object) -> Iterator[str]:
    """The functions that an operation may call."""
    for value in node.attr.values():  # type: ignore[attr-defined]
        for function in (value.func, *value.list.func):
            yield function.name
