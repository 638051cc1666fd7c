"""Lines of text to the ids that `feature_extraction` runs a model on."""

import dataclasses

import tokenization
from bert_keras3.data import sequences
from bert_keras3.data import tables

# Lines are read in chunks of this many batches, or fewer if their vectors would
# exceed this many bytes, and sorted by length within a chunk.
BATCHES_PER_CHUNK = 64
CHUNK_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class InputExample:
  """A line of the input: its number from 0, a text, and maybe a second one."""

  unique_id: int
  text_a: str
  text_b: str | None = None

  @property
  def text(self):
    """Returns the line as it was read."""
    if self.text_b is None:
      return self.text_a
    return f"{self.text_a} ||| {self.text_b}"


@dataclasses.dataclass(frozen=True)
class InputFeatures:
  """Tokens of an example, and lists of ids that are padded."""

  unique_id: int
  tokens: list[str]
  input_ids: list[int]
  input_mask: list[int]
  input_type_ids: list[int]


def iterate_examples(input_file):
  """Yields an InputExample for each line, blank ones included.

  Raises:
    ValueError, OSError: see tokenization.read_lines.
  """
  for number, line in enumerate(tokenization.read_lines(input_file)):
    yield InputExample(number, *tables.split_pair(line))


def read_examples(input_file):
  """Returns all of `iterate_examples`, as a list."""
  return list(iterate_examples(input_file))


def convert_examples_to_features(examples, seq_length, tokenizer):
  """Tokenizes examples and pads them, for programs that use upstream's.

  Args:
    examples: list of InputExample.
    seq_length: tokens of each, padding included.
    tokenizer: tokenization.FullTokenizer.

  Returns:
    List of InputFeatures.
  """
  features = []
  for example in examples:
    line = pack(example, tokenizer, seq_length)
    padding = [0] * (seq_length - len(line.ids))
    num_second = len(line.ids) - line.num_first
    features.append(
      InputFeatures(
        example.unique_id,
        tokenizer.convert_ids_to_tokens(line.ids),
        [*line.ids, *padding],
        [1] * len(line.ids) + padding,
        [0] * line.num_first + [1] * num_second + padding,
      )
    )
  return features


@dataclasses.dataclass(frozen=True)
class Line:
  """An example as the model takes it.

  Attributes:
    number: of the line, from 0.
    text: as it was read.
    ids: list of int, `[CLS]` and `[SEP]` among them.
    num_first: how many of them are of segment 0.
    is_cut: whether the text was truncated.
  """

  number: int
  text: str
  ids: list[int]
  num_first: int
  is_cut: bool = False


def pack(example, tokenizer, max_seq_length):
  """Makes the Line of an InputExample."""
  texts = (example.text_a, example.text_b or "")
  ids = [tokenizer.encode(text) for text in texts]
  kept = sequences.truncate_texts(*ids, max_seq_length)
  special_ids = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])
  packed = sequences.pack_pair(*kept, *special_ids)
  is_cut = sum(map(len, kept)) < sum(map(len, ids))
  return Line(example.unique_id, example.text, *packed, is_cut)


def make_chunks(lines, batch_size, bytes_per_token):
  """Groups lines into chunks that are in memory as a whole.

  Args:
    lines: iterable of Line.
    batch_size: all groups but the last are multiples of it.
    bytes_per_token: bytes kept for each token until its chunk is written.

  Yields:
    Lists of Line.
  """
  chunk, num_bytes = [], 0
  for line in lines:
    chunk.append(line)
    num_bytes += len(line.ids) * bytes_per_token
    is_large = num_bytes >= CHUNK_BYTES or (
      len(chunk) == batch_size * BATCHES_PER_CHUNK
    )
    if is_large and len(chunk) % batch_size == 0:
      yield chunk
      chunk, num_bytes = [], 0
  if chunk:
    yield chunk
