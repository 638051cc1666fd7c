"""Names that notebooks import from upstream's run_squad."""

import contextlib
import dataclasses

from bert_keras3.data import features
from bert_keras3.data import record_writer
from bert_keras3.tasks import squad_data


@dataclasses.dataclass
class InputFeatures:
  """One window as padded lists, as upstream's script passes it around.

  Positions are None for prediction; the keys of the two dicts are the positions
  of document tokens.
  """

  unique_id: int
  example_index: int
  doc_span_index: int
  tokens: list[str]
  token_to_orig_map: dict[int, int]
  token_is_max_context: dict[int, bool]
  input_ids: list[int]
  input_mask: list[int]
  segment_ids: list[int]
  start_position: int | None = None
  end_position: int | None = None
  is_impossible: bool | None = None


def convert_examples_to_features(
  examples,
  tokenizer,
  max_seq_length,
  doc_stride,
  max_query_length,
  is_training,
  output_fn,
):
  """Calls `output_fn` with the InputFeatures of every window.

  Raises:
    ValueError: see `make_windows`.
  """
  windows = squad_data.make_windows(
    examples,
    tokenizer,
    max_seq_length,
    doc_stride,
    max_query_length,
    is_training,
  )
  for number in range(len(windows)):
    feature = _input_features(windows, number, tokenizer, max_seq_length)
    if is_training:
      feature.start_position = int(windows.start_positions[number])
      feature.end_position = int(windows.end_positions[number])
    output_fn(feature)


def _input_features(windows, number, tokenizer, max_seq_length):
  batch = windows.sequences.pad([number], max_seq_length)
  ids = windows.sequences.ids(number).tolist()
  first = int(windows.first_doc_token[number])
  start, stop = windows.word_starts[number : number + 2]
  return InputFeatures(
    squad_data.FIRST_UNIQUE_ID + number,
    int(windows.example_index[number]),
    int(windows.doc_span_index[number]),
    tokenizer.convert_ids_to_tokens(ids),
    dict(enumerate(windows.word_index[start:stop].tolist(), first)),
    dict(enumerate(windows.is_max_context[start:stop].tolist(), first)),
    **{name: values[0].tolist() for name, values in batch.items()},
    is_impossible=bool(windows.is_impossible[number]),
  )


class FeatureWriter:
  """Writes InputFeatures as upstream's TFRecords.

  The file exists once `close` was called.

  Attributes:
    filename: the file.
    is_training: whether positions are written.
    num_features: number of windows written.
  """

  def __init__(self, filename, is_training):
    self.filename = filename
    self.is_training = is_training
    self.num_features = 0
    self._stack = contextlib.ExitStack()
    self._writer = self._stack.enter_context(
      record_writer.RecordWriter(filename)
    )

  def process_feature(self, feature):
    """Appends one InputFeatures."""
    specs = features.squad_features(len(feature.input_ids), self.is_training)
    columns = {
      "unique_ids": [feature.unique_id],
      "input_ids": feature.input_ids,
      "input_mask": feature.input_mask,
      "segment_ids": feature.segment_ids,
      "start_positions": [feature.start_position],
      "end_positions": [feature.end_position],
      "is_impossible": [int(bool(feature.is_impossible))],
    }
    (record,) = features.serialize_examples(columns, specs)
    self._writer.write(record)
    self.num_features += 1

  def close(self):
    """Completes the file."""
    self._stack.close()
