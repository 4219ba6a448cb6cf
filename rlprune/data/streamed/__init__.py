"""Images that stay where they are until they are needed: records in any order, decoded ahead by workers.

Sets whose pixels fit into memory are loaded by `rlprune.data` instead. May import what that package has below
`rlprune.data.image_set`.
"""

from rlprune.data.streamed.fetching import Workers, default_workers, fetch
from rlprune.data.streamed.pixels import Pixels, StreamedPixels, join_pixels
from rlprune.data.streamed.records import DatasetRecords, FileRecords, Records, TableRecords
from rlprune.data.streamed.shards import TarRecords, write_shards

__all__ = [
    "DatasetRecords",
    "FileRecords",
    "Pixels",
    "Records",
    "StreamedPixels",
    "TableRecords",
    "TarRecords",
    "Workers",
    "default_workers",
    "fetch",
    "join_pixels",
    "write_shards",
]
