"""Writes TFRecord files, without TensorFlow.

A record is its length, a checksum of the length, its bytes, and a checksum of
the bytes; both checksums are CRC-32C, masked as TensorFlow's format demands.
"""

import struct

import google_crc32c

from bert_keras3.data import files

CHECKSUM = struct.Struct("<I")


class RecordWriter:
  """Writes a TFRecord file that appears under its name only when complete.

      with RecordWriter(path) as writer:
        writer.write(serialized)

  An exception inside the block deletes the unfinished file.
  """

  def __init__(self, path):
    self._opened = files.open_atomically(path)
    self._file = self._opened.__enter__()

  def write(self, serialized):
    """Appends one record (`bytes`)."""
    length = struct.pack("<Q", len(serialized))
    self._file.write(
      length
      + CHECKSUM.pack(masked_crc(length))
      + serialized
      + CHECKSUM.pack(masked_crc(serialized))
    )

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._opened.__exit__(*error)


def masked_crc(data):
  """Computes the masked CRC-32C of bytes, as TensorFlow's records have it."""
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
