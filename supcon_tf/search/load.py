"""Loads the index of an exported model."""

from pathlib import Path

from supcon_tf.errors import UserError
from supcon_tf.json_files import read_json
from supcon_tf.run_dir import CALIBRATION_FILE
from supcon_tf.search.index import Index
from supcon_tf.search.index_files import model_checksum


def load_index(folder: str, export: Path) -> Index:
    """Loads an index of an exported model; warns if the index does not record its model.

    An export with an unknown score has the embeddings of the model that it was made from, and so
    the same indexes.

    Raises:
      UserError: no index, a damaged one, or one of another model.
    """
    index = Index.load(folder)
    if index.model_checksum is None:
        print(
            f"warning: the index in {folder!r} has no model checksum, so it may be of another "
            f"model than the one in {str(export)!r}: docs/search.md shows how to set it"
        )
    elif index.model_checksum not in (
        model_checksum(export),
        read_json(export / CALIBRATION_FILE).get("model_checksum"),
    ):
        raise UserError(
            f"the index in {folder!r} is of another model than the one in {str(export)!r}: build "
            "it again with that one, by python -m supcon_tf.index"
        )
    return index
