"""Files of vectors: upstream's JSON lines, and a streamed NumPy .npz."""

import functools
import itertools
import json
import tempfile
import zipfile

import numpy as np

# Bytes of a column that are copied at once.
COPY_BYTES = 1 << 20


# A number as text: sign, digits and point, then decimals and a comma.
_CELL = np.dtype([("whole", "S4"), ("decimals", "S8")])


@functools.cache
def _cell_parts():
  """Returns the texts of _CELL by number: -99 to 99, and the millionths."""
  wholes = [f"{sign}{number}." for sign in ("", "-") for number in range(100)]
  decimals = (f"{number:06}".rstrip("0") or "0" for number in range(10**6))
  decimals = (f"{text}, " for text in decimals)
  return np.array(wholes, "S4"), np.fromiter(decimals, "S8", count=10**6)


def format_rows(values):
  """Formats rows of numbers as JSON does, rounded to six decimals.

  Equals json.dumps of round(float(x), 6), but is many times faster: in
  upstream's way, numbers take longer to write than to compute.

  Args:
    values: float32 [rows, width].

  Returns:
    List of str: "0.25, -1.0" for a row of two.
  """
  # A float32 times a million is exact as a double: no rounding before rint's.
  millionths = np.rint(values.astype(np.float64).ravel() * 1e6)
  sizes = np.abs(millionths)
  if not sizes.max(initial=0) < 1e8:  # The model diverged. True for NaN, too.
    rows = (millionths / 1e6).reshape(values.shape).tolist()
    return [json.dumps(row)[1:-1] for row in rows]
  # Below 0.0001 JSON has exponents, and 0 may have a sign.
  odd = np.flatnonzero(sizes < 100)
  sizes = sizes.astype(np.uint32)
  whole, decimals = np.divmod(sizes, np.uint32(10**6))
  wholes_as_text, decimals_as_text = _cell_parts()
  cells = np.empty(len(sizes), _CELL)
  cells["whole"] = wholes_as_text[whole + np.where(millionths < 0, 100, 0)]
  cells["decimals"] = decimals_as_text[decimals]
  odd_numbers = (millionths[odd] / 1e6).tolist()
  cells.view("S12")[odd] = [f"{x!r}, ".encode() for x in odd_numbers]
  # Characters without the zero bytes that fill their cells.
  characters = cells.view(np.uint8)
  lengths = np.count_nonzero(characters.reshape([len(values), -1]), axis=1)
  text = np.compress(characters, characters).tobytes().decode()
  ends = [0, *np.cumsum(lengths).tolist()]
  return [text[i : j - len(", ")] for i, j in itertools.pairwise(ends)]


class JsonWriter:
  """Writes JSON lines, in upstream's layout unless lines are pooled.

  Args:
    writer: binary file.
    extractor: FeatureExtractor.
    is_pooled: whether a line has one vector per layer.
  """

  def __init__(self, writer, extractor, is_pooled):
    self._writer = writer
    self._tokenizer = extractor.tokenizer
    self._layers = extractor.layers
    self._is_pooled = is_pooled

  def write(self, line, vectors):
    """Adds what FeatureExtractor.compute gave for a Line."""
    rows = format_rows(vectors.reshape([-1, vectors.shape[-1]]))
    if self._is_pooled:
      fields = (
        f'"text": {json.dumps(line.text)}, "layers": [{self._join(rows)}]'
      )
    else:
      fields = f'"features": [{self._join_tokens(line.ids, rows)}]'
    record = f'{{"linex_index": {line.number}, {fields}}}\n'
    self._writer.write(record.encode())

  def _join_tokens(self, ids, rows):
    tokens = self._tokenizer.convert_ids_to_tokens(ids)
    rows = iter(rows)
    return ", ".join(
      f'{{"token": {json.dumps(token)}, "layers": [{self._join(rows)}]}}'
      for token in tokens
    )

  def _join(self, rows):
    """Formats the layers of a token, taking the next rows."""
    pairs = zip(self._layers, rows, strict=False)
    return ", ".join(
      f'{{"index": {index}, "values": [{numbers}]}}' for index, numbers in pairs
    )

  def close(self):
    """Does nothing."""


class Column:
  """An array that grows on disk until it is copied into an .npz file.

  Args:
    name: of the array.
    dtype: of its numbers.
    row_shape: its shape but for the first axis.
    folder: of its temporary file, None for the system's.
  """

  def __init__(self, name, dtype, row_shape, folder):
    self.name = name
    self._dtype = np.dtype(dtype)
    self._row_shape = tuple(row_shape)
    self._num_rows = 0
    # A file without a name is deleted however this process ends.
    self._rows = tempfile.TemporaryFile(dir=folder)

  def add(self, rows):
    """Appends an array [rows, *row_shape], or a list for it."""
    rows = np.asarray(rows, self._dtype).reshape([-1, *self._row_shape])
    self._rows.write(np.ascontiguousarray(rows).data)
    self._num_rows += len(rows)

  def copy_to(self, archive):
    """Writes the array into a zipfile.ZipFile, a piece at a time."""
    header = {
      "descr": np.lib.format.dtype_to_descr(self._dtype),
      "fortran_order": False,
      "shape": (self._num_rows, *self._row_shape),
    }
    self._rows.seek(0)
    # The archive does not know the size in advance; it may exceed 4 GB.
    with archive.open(f"{self.name}.npy", "w", force_zip64=True) as member:
      np.lib.format.write_array_header_2_0(member, header)
      while piece := self._rows.read(COPY_BYTES):
        member.write(piece)
    self._rows.close()


class _Stream:
  """A file without `seek`: TensorFlow's files claim to seek, but cannot."""

  def __init__(self, writer):
    self._writer = writer
    self.flush = writer.flush

  def write(self, content):
    self._writer.write(content)
    return len(content)


class NpzWriter:
  """Writes arrays for numpy.load.

  `layers` are the layers' numbers. With pooling there is `embeddings` float32
  [lines, layers, width]. Without, line i has rows offsets[i] to offsets[i + 1]
  of `values` float32 [tokens of all lines, layers, width] and of `tokens`.

  Args:
    writer: binary file.
    extractor: FeatureExtractor.
    is_pooled: whether a line has one vector per layer.
    folder: of the temporary files, None for the system's.
  """

  def __init__(self, writer, extractor, is_pooled, folder):
    self._writer = writer
    self._tokenizer = extractor.tokenizer
    self._is_pooled = is_pooled
    self._num_tokens = 0
    name = "embeddings" if is_pooled else "values"
    shape = (len(extractor.layers), extractor.width)
    longest = max(map(len, extractor.tokenizer.vocab))
    self._vectors = Column(name, np.float32, shape, folder)
    self._layers = Column("layers", np.int32, (), folder)
    self._offsets = Column("offsets", np.int64, (), folder)
    self._tokens = Column("tokens", f"<U{longest}", (), folder)
    self._layers.add(extractor.layers)
    self._offsets.add([0])

  def write(self, line, vectors):
    """Adds what FeatureExtractor.compute gave for a Line."""
    self._vectors.add(vectors)
    if not self._is_pooled:
      self._num_tokens += len(line.ids)
      self._offsets.add([self._num_tokens])
      self._tokens.add(self._tokenizer.convert_ids_to_tokens(line.ids))

  def close(self):
    """Writes the file from its columns."""
    columns = [self._vectors, self._layers]
    if not self._is_pooled:
      columns += [self._offsets, self._tokens]
    with zipfile.ZipFile(_Stream(self._writer), "w") as archive:
      for column in columns:
        column.copy_to(archive)
