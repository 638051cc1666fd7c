"""Classification tasks: files to examples to sequences of ids.

A task is a row of `TASKS`: its files, their columns of texts and label, its
labels and metrics. `tables.read_examples` turns a file into `InputExample`s,
`tokenize_examples` and `label_ids` turn these into arrays.

Nothing here needs TensorFlow before `tokenize_examples`.
"""

import dataclasses
import os
import sys

import numpy as np
import tqdm

from bert_keras3.data import files
from bert_keras3.data import sequences
from bert_keras3.data import tables
from bert_keras3.weights import file_names
from bert_keras3.weights.labels import format_labels
from bert_keras3.weights.labels import read_labels

PROBLEM_TYPES = ("single_label", "multi_label", "regression")
LONG_TEXT = ("truncate", "head_tail", "sliding")


# The table of tasks -----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DataFile:
  """One file of a task, in its data_dir."""

  name: str
  layout: tables.Layout


@dataclasses.dataclass(frozen=True)
class Task:
  """One row of the table.

  `files` maps a split to the DataFiles it may be in; the first that exists is
  read. Besides "train", "dev" and "test" a task may have further ones whose
  name begins with "dev_" or "test_", evaluated and predicted where their files
  exist. `submissions` maps a test split to the name GLUE's server expects.
  """

  name: str
  files: dict[str, tuple[DataFile, ...]]
  labels: tuple[str, ...] = ()  # in the order of the logits; inferred if empty
  problem_type: str = "single_label"
  metrics: tuple[str, ...] = ("accuracy",)  # the first decides what is best
  submissions: dict[str, str] = dataclasses.field(default_factory=dict)

  @property
  def has_pairs(self):
    """Returns whether examples have two texts."""
    return any(
      file.layout.text_b is not None
      for files in self.files.values()
      for file in files
    )

  def settings(self, config):
    """Lists the flags that must be equal in training and in use of a model.

    For an export these are also the flags that its graph depends on.

    Args:
      config: ClassifierConfig.
    """
    names = ["problem_type", "do_lower_case", "special_tokens_in_text"]
    # A model trained on one file format may answer about another.
    if self.name not in OWN_FORMATS:
      names.insert(0, "task_name")
    if config.do_export:
      names += ["max_seq_length", "long_text", "text_b"]
    return names

  def splits(self, kind):
    """Returns the names of the splits of a kind, "dev" or "test"."""
    return [x for x in self.files if x == kind or x.startswith(f"{kind}_")]


# The order of the logits, as upstream's get_labels.
NLI_LABELS = ("contradiction", "entailment", "neutral")
ENTAILMENT_LABELS = ("entailment", "not_entailment")
# 105 and 111 were never used.
TNEWS_LABELS = tuple(str(x) for x in range(100, 117) if x not in (105, 111))
F1_METRICS = ("f1", "accuracy")
CORRELATIONS = ("pearson", "spearman")


def _glue(name, glue_name, train, test, labels=("0", "1"), **kwargs):
  """Makes a task with GLUE's file names."""
  files = {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"}
  layouts = {"train": train, "dev": train, "test": test}
  return Task(
    name,
    files={x: (DataFile(files[x], layouts[x]),) for x in files},
    labels=labels,
    submissions={"test": f"{glue_name}.tsv"},
    **kwargs,
  )


def _mnli():
  layout = tables.Layout(8, 9, label=-1, row_id=0)
  names = {
    "train": "train.tsv",
    "dev": "dev_matched.tsv",
    "dev_mismatched": "dev_mismatched.tsv",
    "test": "test_matched.tsv",
    "test_mismatched": "test_mismatched.tsv",
  }
  files = {split: (DataFile(x, layout),) for split, x in names.items()}
  matched = dataclasses.replace(layout, guid_prefix="dev_matched")
  return Task(
    "mnli",
    files={**files, "dev": (DataFile(names["dev"], matched),)},
    labels=NLI_LABELS,
    submissions={"test": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
  )


def xnli(language="zh"):
  """Makes XNLI in one of its 15 languages; upstream's was fixed to Chinese."""
  train = tables.Layout(
    0,
    1,
    label=2,
    renamed_labels=(("contradictory", "contradiction"),),
    counts_header_row=True,
  )
  dev = tables.Layout(
    6, 7, label=1, where=(0, language), counts_header_row=True
  )
  train_file = f"multinli/multinli.train.{language}.tsv"
  return Task(
    "xnli",
    files={
      "train": (DataFile(train_file, train),),
      "dev": (DataFile("xnli.dev.tsv", dev),),
      "test": (DataFile("xnli.test.tsv", dev),),
    },
    labels=NLI_LABELS,
  )


def _clue(name, text_a, text_b=None, train=None, other=None, **kwargs):
  """Makes a task in CLUE's JSON lines; `other` has more DataFiles by split."""
  layout = tables.Layout(text_a, text_b, label="label", file_format="jsonl")
  layout = dataclasses.replace(layout, unlabeled=kwargs.pop("unlabeled", None))
  test = dataclasses.replace(layout, label=None, row_id="id")
  files = {
    "train": [DataFile(train or "train.json", layout)],
    "dev": [DataFile("dev.json", layout)],
    "test": [DataFile("test.json", test)],
  }
  for split, file in (other or {}).items():
    files[split].append(file)
  return Task(
    name, files={split: tuple(x) for split, x in files.items()}, **kwargs
  )


def _toutiao_files():
  layout = tables.Layout(
    3, label=1, row_id=0, file_format="toutiao", has_header=False
  )
  return {
    split: DataFile(f"toutiao_category_{split}.txt", layout)
    for split in ("train", "dev", "test")
  }


def own_task(file_format, layout, problem_type="single_label"):
  """Makes the task of a user's own files.

  Args:
    file_format: "csv", "tsv" or "jsonl".
    layout: tables.Layout of all files.
    problem_type: one of PROBLEM_TYPES.
  """
  layout = dataclasses.replace(layout, file_format=file_format)
  is_columns = isinstance(layout.label, tuple)
  metrics = {
    "single_label": ("accuracy", "macro_f1"),
    "multi_label": ("micro_f1", "macro_f1", "subset_accuracy"),
    "regression": CORRELATIONS,
  }
  return Task(
    file_format,
    files={
      split: (DataFile(f"{split}.{file_format}", layout),)
      for split in ("train", "dev", "test")
    },
    # Columns of 0 and 1 name the labels; else the training file has them.
    labels=tuple(map(str, layout.label if is_columns else ())),
    problem_type=problem_type,
    metrics=metrics[problem_type],
  )


def _diagnostic_files():
  """Returns GLUE's diagnostic set, under both names it is published with."""
  layout = tables.Layout(1, 2, row_id=0)
  return tuple(DataFile(x, layout) for x in ("diagnostic.tsv", "AX.tsv"))


_PAIR = tables.Layout(1, 2, label=3, row_id=0)
TASKS = {
  task.name: task
  for task in (
    _glue(
      "cola",
      "CoLA",
      tables.Layout(3, label=1, has_header=False),
      tables.Layout(1, row_id=0, counts_header_row=True),
      metrics=("matthews_correlation", "accuracy"),
    ),
    _mnli(),
    _glue(
      "mrpc",
      "MRPC",
      tables.Layout(3, 4, label=0, counts_header_row=True),
      tables.Layout(3, 4, row_id=0, counts_header_row=True),
      metrics=F1_METRICS,
    ),
    xnli(),
    _glue(
      "sst-2", "SST-2", tables.Layout(0, label=1), tables.Layout(1, row_id=0)
    ),
    _glue(
      "sts-b",
      "STS-B",
      tables.Layout(7, 8, label=-1, row_id=0),
      tables.Layout(7, 8, row_id=0),
      labels=(),
      problem_type="regression",
      metrics=CORRELATIONS,
    ),
    _glue(
      "qqp",
      "QQP",
      tables.Layout(3, 4, label=5, row_id=0),
      tables.Layout(1, 2, row_id=0),
      metrics=F1_METRICS,
    ),
    _glue("qnli", "QNLI", _PAIR, _PAIR, labels=ENTAILMENT_LABELS),
    _glue("rte", "RTE", _PAIR, _PAIR, labels=ENTAILMENT_LABELS),
    _glue("wnli", "WNLI", _PAIR, _PAIR),
    Task(
      "ax",
      files={"test": _diagnostic_files()},
      labels=NLI_LABELS,
      metrics=("matthews_correlation",),
      submissions={"test": "AX.tsv"},
    ),
    _clue("tnews", "sentence", other=_toutiao_files(), labels=TNEWS_LABELS),
    _clue("afqmc", "sentence1", "sentence2", labels=("0", "1")),
    _clue(
      "ocnli",
      "sentence1",
      "sentence2",
      train="train.50k.json",
      labels=NLI_LABELS,
      unlabeled="-",
    ),
    _clue("iflytek", "sentence", labels=tuple(map(str, range(119)))),
  )
}
OWN_FORMATS = ("tsv", "csv", "jsonl")


def register(task, reader=None):
  """Adds a task to the table.

  Args:
    task: Task.
    reader: function from path to an iterator of (line number, list or dict of
      fields), for a file_format that tables.READERS lacks; it is added there
      under the task's name.
  """
  TASKS[task.name] = task
  if reader:
    tables.READERS[task.name] = reader


def find_task(name):
  """Returns the row of a task, ignoring case and hyphens of its name.

  Raises:
    ValueError: there is no such task.
  """
  key = _task_key(name)
  by_key = {_task_key(x): TASKS[x] for x in TASKS}
  if key not in by_key:
    raise ValueError(
      f"Task not found: {name}; the tasks are "
      + ", ".join(sorted([*TASKS, *OWN_FORMATS]))
    )
  return by_key[key]


def _task_key(name):
  return name.lower().replace("_", "").replace("-", "")


def make_task(config):
  """Makes the Task that the flags describe.

  Args:
    config: ClassifierConfig.

  Raises:
    ValueError: there is no such task, or a flag does not fit it.
  """
  name = config.task_name.lower()
  if name == "xnli":
    task = xnli(config.xnli_language)
  elif name in OWN_FORMATS:
    task = own_task(name, _own_layout(config), config.problem_type)
  else:
    task = find_task(name)
  _check_problem_type(config, task)
  return task


def _own_layout(config):
  label = config.label_column
  if config.problem_type == "multi_label" and "," in label:
    label = tuple(label.split(","))
  return tables.Layout(
    text_a=config.text_a,
    text_b=config.text_b,
    label=label,
    row_id=config.id_column,
    has_header=config.header,
    label_separator=config.label_separator,
  )


def _check_problem_type(config, task):
  """Refuses flags that would have no effect on a task.

  Raises:
    ValueError: there is such a flag.
  """
  if config.problem_type not in ("single_label", task.problem_type):
    raise ValueError(
      f"--problem_type={config.problem_type} is for csv, tsv and jsonl; task "
      f"{task.name} is {task.problem_type}"
    )
  if config.label_smoothing and task.problem_type != "single_label":
    raise ValueError(
      f"--label_smoothing has no meaning for {task.problem_type}; leave it out"
    )
  if config.class_weights and task.problem_type == "regression":
    raise ValueError(
      "--class_weights has no meaning for regression; leave it out"
    )


def find_file(task, split, data_dir):
  """Finds the file of a split.

  Returns:
    (path, Layout), None if no file of the split exists.
  """
  for file in task.files.get(split, ()):
    path = os.path.join(data_dir, file.name)
    if files.exists(path):
      return path, file.layout
  return None


def require_file(task, split, data_dir):
  """Finds the file of a split as `find_file` does, or raises an error.

  Raises:
    FileNotFoundError: data_dir has no file of the split.
    ValueError: the task has no such split.
  """
  if split not in task.files:
    raise ValueError(
      f"task {task.name} has no {split} file; it is for prediction with a "
      "model trained on another task, such as mnli"
    )
  if not files.exists(data_dir):
    raise FileNotFoundError(
      f"there is no directory {data_dir}; check --data_dir"
    )
  file = find_file(task, split, data_dir)
  if not file:
    names = " or ".join(file.name for file in task.files[split])
    raise FileNotFoundError(
      f"{data_dir} has no {names}, the {split} file of task {task.name}"
    )
  return file


def default_layout(task, split, path):
  """Returns the layout of a file that replaces a split's usual one.

  Raises:
    ValueError: the task has no such split.
  """
  if split not in task.files:
    raise ValueError(f"task {task.name} has no {split} file")
  files = task.files[split]
  extension = os.path.splitext(path)[1]
  alike = [x for x in files if os.path.splitext(x.name)[1] == extension]
  return (alike or files)[0].layout


def with_training_labels(task, path, examples):
  """Returns a task with the labels of its examples, unless it has its own.

  Raises:
    ValueError: see `infer_labels`.
  """
  if task.labels or task.problem_type == "regression":
    return task
  labels = infer_labels(path, examples, task.problem_type)
  return dataclasses.replace(task, labels=labels)


def with_saved_labels(task, labels_file):
  """Returns a task with the labels of a trained model, unless it has its own.

  Raises:
    FileNotFoundError: there is no file of labels (None).
    ValueError: the label columns are not the model's labels.
  """
  is_own = task.name in OWN_FORMATS
  if task.problem_type == "regression" or (task.labels and not is_own):
    return task
  if not labels_file:
    raise FileNotFoundError(
      "there is no model to use: neither --output_dir nor the directory of "
      "--init_checkpoint holds a labels.txt, or a config.json that names "
      "labels; train with --do_train first"
    )
  labels = tuple(read_labels(labels_file))
  if task.labels and set(task.labels) != set(labels):
    raise ValueError(
      f"--label_column names {', '.join(task.labels)}, but the model tells "
      f"{', '.join(labels)} apart"
    )
  return dataclasses.replace(task, labels=labels)


def infer_labels(path, examples, problem_type):
  """Returns the labels of training examples: numbers by value, then words.

  Raises:
    ValueError: there are too few, or they look like scores.
  """
  if problem_type == "multi_label":
    labels = {label for example in examples for label in example.label}
  else:
    labels = {example.label for example in examples}
  if not labels:
    raise ValueError(f"{path}: no row has a label; check --label_column")
  fractions = [label for label in labels if _is_fraction(label)]
  if fractions and problem_type == "single_label":
    raise ValueError(
      f"{path}: the label {fractions[0]!r} is a number with a fraction; pass "
      "--problem_type=regression, or name another --label_column"
    )
  if len(labels) < 2 and problem_type == "single_label":
    raise ValueError(
      f"{path}: all examples have the label {labels.pop()!r}; there is nothing "
      "to tell apart"
    )
  return tuple(sorted(labels, key=_label_order))


def _is_fraction(label):
  value = _label_value(label)
  return value is not None and not value.is_integer()


def _label_order(label):
  value = _label_value(label)
  return (value is None, value or 0, label)


def _label_value(label):
  """Returns a label as a number, None if it is a word such as "Infinity"."""
  try:
    value = float(label)
  except ValueError:
    return None
  return value if np.isfinite(value) else None


# Features ---------------------------------------------------------------------


def label_ids(examples, labels, problem_type):
  """Converts labels to the array that the model's loss takes.

  Returns:
    single_label: int32 [examples], 0 where the label is not known (upstream's
    stand-in for test files); multi_label: float32 [examples, labels] of 0 and
    1; regression: float32 [examples].
  """
  if problem_type == "regression":
    return np.array([x.label or 0.0 for x in examples], np.float32)
  number = {label: i for i, label in enumerate(labels)}
  if problem_type == "single_label":
    ids = [0 if x.label is None else number[x.label] for x in examples]
    return np.array(ids, np.int32)
  matrix = np.zeros([len(examples), len(labels)], np.float32)
  for row, example in zip(matrix, examples, strict=True):
    for label in example.label or ():
      row[number[label]] = 1
  return matrix


def tokenize_examples(
  examples, tokenizer, max_seq_length, long_text="truncate"
):
  """Packs examples as `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

  Args:
    examples: list of InputExample.
    tokenizer: tokenization.FullTokenizer.
    max_seq_length: tokens of a sequence at most.
    long_text: how to shorten longer ones. "truncate" drops the end, of the
      longer text first; "head_tail" drops the middle of each text (arXiv
      1905.05583, section 5.3.1); "sliding" makes several sequences, overlapping
      by half.

  Returns:
    (sequences.Sequences; int32 [sequences], the example of each).
  """
  cls_id, sep_id = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])
  packed, owners = [], []
  for number, example in enumerate(_with_bar(examples)):
    tokens_a = tokenizer.encode(example.text_a)
    tokens_b = tokenizer.encode(example.text_b) if example.text_b else []
    for a, b in _FIT[long_text](tokens_a, tokens_b, max_seq_length):
      packed.append(sequences.pack_pair(a, b, cls_id, sep_id))
      owners.append(number)
  return sequences.Sequences(packed), np.array(owners, np.int32)


def _with_bar(examples):
  # Fewer than ten thousand take less than a second.
  is_quiet = len(examples) < 10000 or not sys.stderr.isatty()
  return tqdm.tqdm(examples, "tokenizing", disable=is_quiet)


def _truncate(tokens_a, tokens_b, max_seq_length):
  return [sequences.truncate_texts(tokens_a, tokens_b, max_seq_length)]


def _head_tail(tokens_a, tokens_b, max_seq_length):
  keep = sequences.truncate_pair(len(tokens_a), len(tokens_b), max_seq_length)
  return [(_drop_middle(tokens_a, keep[0]), _drop_middle(tokens_b, keep[1]))]


def _drop_middle(tokens, keep):
  """Keeps `keep` tokens: a quarter from the start, the rest from the end.

  128 and 382 of 510 tokens did best in arXiv 1905.05583, table 2.
  """
  if len(tokens) <= keep:
    return tokens
  head = -(-keep // 4)
  return tokens[:head] + tokens[len(tokens) - (keep - head) :]


def _slide(tokens_a, tokens_b, max_seq_length):
  """Lays windows over the longer text; the other gets half the room at most."""
  room = max_seq_length - (3 if tokens_b else 2)
  if room < 1:
    return [([], [])]
  if len(tokens_a) + len(tokens_b) <= room:
    return [(tokens_a, tokens_b)]
  slides_a = len(tokens_a) >= len(tokens_b)
  long, short = (tokens_a, tokens_b) if slides_a else (tokens_b, tokens_a)
  short = short[: room // 2]
  width = room - len(short)
  stride = max(1, width // 2)
  starts = range(0, max(1, len(long) - width + stride), stride)
  windows = [long[start : start + width] for start in starts]
  return [(x, short) if slides_a else (short, x) for x in windows]


_FIT = {"truncate": _truncate, "head_tail": _head_tail, "sliding": _slide}


@dataclasses.dataclass(frozen=True)
class Split:
  """The examples of one file, tokenised."""

  examples: list[tables.InputExample]
  labels: np.ndarray  # as of `label_ids`
  source: sequences.SequenceSource
  owners: np.ndarray  # int32 [sequences], the example each belongs to


def make_split(
  examples,
  task,
  tokenizer,
  max_seq_length,
  long_text="truncate",
  pad_to_max_length=False,
):
  """Tokenises the examples of a file.

  Args:
    examples: list of InputExample.
    task: Task with its labels.
    tokenizer: tokenization.FullTokenizer.
    max_seq_length: tokens of a sequence at most.
    long_text: one of LONG_TEXT, see `tokenize_examples`.
    pad_to_max_length: whether to pad all batches to max_seq_length.
  """
  tokenized, owners = tokenize_examples(
    examples, tokenizer, max_seq_length, long_text
  )
  labels = label_ids(examples, task.labels, task.problem_type)
  buckets = (max_seq_length,)
  if not pad_to_max_length:
    buckets = sequences.bucket_lengths(tokenized.lengths, max_seq_length)
  source = sequences.SequenceSource(
    tokenized, {"label_ids": labels[owners]}, buckets
  )
  return Split(examples, labels, source, owners)


# The data of a run ------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Data:
  """The data of a run.

  Attributes:
    task: Task with its labels.
    splits: dict from name to Split, training first.
    deciding_files: paths of the data that decide the trained weights.
  """

  task: Task
  splits: dict[str, Split]
  deciding_files: list[str]

  @property
  def train(self):
    """Returns the Split to train on, None without training."""
    return self.splits.get("train")

  def of_kind(self, kind):
    """Returns {name: Split} to evaluate on ("dev") or to predict ("test")."""
    names = self.task.splits(kind)
    return {name: self.splits[name] for name in names if name in self.splits}

  def save_companions(self, pretrained, directory):
    """Saves the vocabulary and the labels beside a model.

    Args:
      pretrained: companions.Pretrained.
      directory: output_directory.OutputDirectory.
    """
    directory.copy_vocab(pretrained.files.vocab_file)
    if self.task.labels:
      directory.write(file_names.LABELS, format_labels(self.task.labels))


def open_data(config, pretrained):
  """Finds, reads and tokenizes the files of a run.

  Args:
    config: ClassifierConfig.
    pretrained: companions.Pretrained.

  Returns:
    Data.

  Raises:
    ValueError, OSError: a file is missing, or a row is malformed.
  """
  task = make_task(config)
  split_files = _find_splits(config, task)
  labels_file = pretrained.files.labels_file
  task, examples = _read_splits(config, task, split_files, labels_file)
  splits = {
    name: make_split(
      rows,
      task,
      pretrained.tokenizer,
      config.max_seq_length,
      config.long_text,
      config.is_padded,
    )
    for name, rows in examples.items()
  }
  deciding = ("train", "dev") if config.is_monitored else ("train",)
  paths = [split_files[name][0] for name in deciding if name in split_files]
  return Data(task, splits, paths)


def _find_splits(config, task):
  """Finds the files to read.

  Returns:
    Dict from the name of a split to (path, Layout), training first.

  Raises:
    FileNotFoundError: a file that is needed is missing.
    ValueError: the task has no such split, or --data_dir is missing.
  """
  wanted = {
    "train": (config.do_train, config.train_file, "train_file"),
    "dev": (config.do_eval, config.eval_file, "eval_file"),
    "test": (config.do_predict, config.predict_file, "predict_file"),
  }
  splits = {}
  for split, (is_wanted, path, flag) in wanted.items():
    if not is_wanted:
      continue
    if path:
      layout = default_layout(task, split, path)
      splits[split] = (files.find_files(flag, path)[0], layout)
      continue
    if not config.data_dir:
      raise ValueError(f"pass --data_dir or --{flag}: there is nothing to read")
    splits[split] = require_file(task, split, config.data_dir)
    for other in task.splits(split):
      file = find_file(task, other, config.data_dir)
      if file:
        splits[other] = file
  return splits


def _read_splits(config, task, split_files, labels_file):
  """Reads the examples of all files; sets the task's labels.

  Args:
    config: ClassifierConfig.
    task: Task.
    split_files: dict that `_find_splits` returned.
    labels_file: labels.txt of a trained model, or None.

  Returns:
    (Task with its labels, dict from split to list of InputExample).
  """
  examples = {}
  if not config.do_train:
    task = with_saved_labels(task, labels_file)
  for split, (path, layout) in split_files.items():
    examples[split] = tables.read_examples(
      path,
      layout,
      split,
      task.problem_type,
      task.labels or None,
      config.skip_bad_rows,
    )
    if split == "train":
      task = with_training_labels(task, path, examples[split])
  return task, examples
