"""Names that notebooks import from upstream's run_classifier."""

import csv
import dataclasses
import io

from bert_keras3.data import features
from bert_keras3.data import record_writer
from bert_keras3.data import tables
from bert_keras3.tasks import classifier_data


class PaddingInputExample:
  """Stands for a row that only fills a batch, in upstream's functions."""


@dataclasses.dataclass
class InputFeatures:
  """Holds one example as padded lists, as upstream's scripts do."""

  input_ids: list[int]
  input_mask: list[int]
  segment_ids: list[int]
  label_id: int
  is_real_example: bool = True


def convert_single_example(
  ex_index, example, label_list, max_seq_length, tokenizer
):
  """Converts one InputExample to InputFeatures; `ex_index` is not used."""
  del ex_index
  if isinstance(example, PaddingInputExample):
    zeros = ([0] * max_seq_length for _ in range(3))
    return InputFeatures(*zeros, label_id=0, is_real_example=False)
  sequences, _ = classifier_data.tokenize_examples(
    [example], tokenizer, max_seq_length
  )
  batch = sequences.pad([0], max_seq_length)
  return InputFeatures(
    *(batch[x][0].tolist() for x in features.SEQUENCE_FEATURES),
    label_id=int(
      classifier_data.label_ids([example], label_list, "single_label")[0]
    ),
  )


def convert_examples_to_features(
  examples, label_list, max_seq_length, tokenizer
):
  """Converts each tables.InputExample; returns a list of InputFeatures."""
  return [
    convert_single_example(i, example, label_list, max_seq_length, tokenizer)
    for i, example in enumerate(examples)
  ]


def file_based_convert_examples_to_features(
  examples, label_list, max_seq_length, tokenizer, output_file
):
  """Writes InputFeatures as upstream's TFRecords."""
  specs = features.classifier_features(max_seq_length)
  converted = convert_examples_to_features(
    examples, label_list, max_seq_length, tokenizer
  )
  columns = {
    "input_ids": [x.input_ids for x in converted],
    "input_mask": [x.input_mask for x in converted],
    "segment_ids": [x.segment_ids for x in converted],
    "label_ids": [x.label_id for x in converted],
    "is_real_example": [int(x.is_real_example) for x in converted],
  }
  with record_writer.RecordWriter(output_file) as writer:
    for record in features.serialize_examples(columns, specs):
      writer.write(record)


class DataProcessor:
  """Gives the examples and labels of a data set; users' code subclasses it."""

  def get_train_examples(self, data_dir):
    """Reads the InputExamples of the training set."""
    raise NotImplementedError

  def get_dev_examples(self, data_dir):
    """Reads the InputExamples of the development set."""
    raise NotImplementedError

  def get_test_examples(self, data_dir):
    """Reads the InputExamples for prediction."""
    raise NotImplementedError

  def get_labels(self):
    """Returns the labels in the order of the logits."""
    raise NotImplementedError

  @classmethod
  def _read_tsv(cls, input_file, quotechar=None):
    if not quotechar:
      return [fields for _, fields in tables.READERS["glue"](input_file)]
    lines = io.StringIO(tables.read_text(input_file), newline="")
    return list(csv.reader(lines, delimiter="\t", quotechar=quotechar))


class TaskProcessor(DataProcessor):
  """Gives upstream's interface to a row of TASKS, which subclasses name."""

  task_name = None

  @property
  def task(self):
    """Returns the Task."""
    return classifier_data.TASKS[self.task_name]

  def get_train_examples(self, data_dir):
    """Reads the InputExamples of the training file."""
    return self._read(data_dir, "train")

  def get_dev_examples(self, data_dir):
    """Reads the InputExamples of the development file."""
    return self._read(data_dir, "dev")

  def get_test_examples(self, data_dir):
    """Reads the InputExamples of the test file, without labels."""
    return self._read(data_dir, "test")

  def get_labels(self):
    """Returns the labels in the order of the logits."""
    return list(self.task.labels)

  def _read(self, data_dir, split):
    path, layout = classifier_data.require_file(self.task, split, data_dir)
    return tables.read_examples(
      path, layout, split, self.task.problem_type, self.task.labels or None
    )


class ColaProcessor(TaskProcessor):
  """Reads CoLA: whether a sentence is acceptable."""

  task_name = "cola"


class MnliProcessor(TaskProcessor):
  """Reads MNLI; the development and test files are the matched ones."""

  task_name = "mnli"


class MrpcProcessor(TaskProcessor):
  """Reads MRPC: whether two sentences are paraphrases."""

  task_name = "mrpc"


class XnliProcessor(TaskProcessor):
  """Reads XNLI in the language of the attribute, as upstream's does."""

  def __init__(self):
    self.language = "zh"

  @property
  def task(self):
    """Returns the Task in this language."""
    return classifier_data.xnli(self.language)
