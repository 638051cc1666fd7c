"""Every task's files, the user's own, bad rows, and upstream's features."""

import dataclasses
import itertools
import json
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

import run_classifier
import tokenization
from bert_keras3.data import sequences as sequences_module
from bert_keras3.data import tables
from bert_keras3.data.tables import InputExample
from bert_keras3.data.tables import Layout
from bert_keras3.tasks import classifier_data
from bert_keras3.tasks import upstream_api
from bert_keras3.weights import labels as labels_module

OWN = pathlib.Path(__file__).parent / "testdata" / "classifier"
SHARED = pathlib.Path(__file__).parent.parent.parent / "shared"


def json_lines(path):
  with open(path, encoding="utf-8") as lines:
    return [json.loads(line) for line in lines]


def read_split(task, split, folder):
  path, layout = classifier_data.require_file(task, split, str(folder))
  labels = task.labels or None
  return tables.read_examples(path, layout, split, task.problem_type, labels)


def unpadded(sequences):
  """What Sequences holds, as pairs of lists (ids, segment ids)."""
  longest = int(sequences.lengths.max(initial=0))
  batch = sequences.pad(range(len(sequences)), longest)
  assert batch["input_mask"].sum(axis=1).tolist() == sequences.lengths.tolist()
  return [
    (ids[:length].tolist(), segments[:length].tolist())
    for ids, segments, length in zip(
      batch["input_ids"], batch["segment_ids"], sequences.lengths, strict=True
    )
  ]


# Upstream's features


GOLDEN_TASKS = ("cola", "mnli", "mrpc", "xnli")
GOLDEN_LENGTHS = (128, 64, 32, 4)


def golden_rows(goldens, **wanted):
  """Rows of features.jsonl that have some values."""
  rows = json_lines(goldens / "classifier" / "features.jsonl")
  return [x for x in rows if wanted.items() <= x.items()]


@pytest.mark.parametrize("max_seq_length", GOLDEN_LENGTHS)
@pytest.mark.parametrize("task_name", GOLDEN_TASKS)
def test_features_of_the_original(goldens, task_name, max_seq_length):
  task = classifier_data.TASKS[task_name]
  do_lower_case = max_seq_length != 64
  tokenizer = tokenization.FullTokenizer(
    str(goldens / "vocab" / "vocab.txt"), do_lower_case
  )
  # Upstream reads no test file of XNLI.
  splits = ("train", "dev") if task_name == "xnli" else ("train", "dev", "test")
  for split in splits:
    rows = golden_rows(
      goldens,
      task=task_name,
      split=split,
      max_seq_length=max_seq_length,
      padded_length=max_seq_length,
      do_lower_case=do_lower_case,
    )
    examples = read_split(task, split, goldens / "inputs" / task_name)
    assert [x.guid for x in examples] == [row["guid"] for row in rows]
    assert [x.label for x in examples] == [
      None if split == "test" else row["label"] for row in rows
    ]
    for row, example in zip(rows, examples, strict=True):
      texts = (example.text_a, example.text_b)
      if max_seq_length == 128:
        assert texts == (row["text_a"], row["text_b"])
    sequences, _ = classifier_data.tokenize_examples(
      examples, tokenizer, max_seq_length
    )
    assert unpadded(sequences) == [
      (row["input_ids"], row["segment_ids"]) for row in rows
    ]
    ids = classifier_data.label_ids(examples, task.labels, "single_label")
    assert ids.tolist() == [row["label_id"] for row in rows]


def test_padding_example_of_the_original(goldens):
  *others, golden = golden_rows(goldens)
  kinds = {(row["task"], row["max_seq_length"]) for row in others}
  assert kinds == set(itertools.product(GOLDEN_TASKS, GOLDEN_LENGTHS))
  length = golden["padded_length"]
  padding = upstream_api.PaddingInputExample()
  feature = upstream_api.convert_single_example(0, padding, [], length, None)
  assert dataclasses.asdict(feature) == {
    "input_ids": [0] * length,
    "input_mask": [0] * length,
    "segment_ids": [0] * length,
    "label_id": golden["label_id"],
    "is_real_example": golden["is_real_example"],
  }


def parsed_records(path):
  for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
    features = tf.train.Example.FromString(record).features.feature
    yield {name: list(x.int64_list.value) for name, x in features.items()}


def test_records_of_the_original(goldens, tmp_path):
  mrpc = classifier_data.TASKS["mrpc"]
  examples = read_split(mrpc, "dev", goldens / "inputs" / "mrpc")
  path = str(tmp_path / "eval.tf_record")
  upstream_api.file_based_convert_examples_to_features(
    [*examples, upstream_api.PaddingInputExample()],
    mrpc.labels,
    64,
    tokenization.FullTokenizer(str(goldens / "vocab" / "vocab.txt")),
    path,
  )
  golden = list(parsed_records(goldens / "classifier/mrpc_dev_s64.tf_record"))
  assert len(golden) == 20
  assert list(parsed_records(path)) == golden


@pytest.mark.parametrize(
  "row",
  json_lines(OWN / "features.jsonl"),
  ids=lambda row: f"{row['task']}-{row['guid']}-{row['max_seq_length']}",
)
def test_some_features_of_the_original(tmp_path, row):
  # Any part of a vocabulary that has a text's tokens yields these tokens.
  tokens = row["tokens"].split()
  vocab = tmp_path / "vocab.txt"
  vocab.write_text("\n".join(["[PAD]", "[UNK]", *tokens]), encoding="utf-8")
  tokenizer = tokenization.FullTokenizer(str(vocab), row["do_lower_case"])
  label = None if row["guid"].startswith("test") else row["label"]
  feature = upstream_api.convert_single_example(
    0,
    InputExample(row["guid"], row["text_a"], row["text_b"], label),
    classifier_data.TASKS[row["task"]].labels,
    row["max_seq_length"],
    tokenizer,
  )
  num_first = len(tokens) - row["num_second"]
  padding = [0] * (row["max_seq_length"] - len(tokens))
  ids = tokenizer.convert_tokens_to_ids(tokens)
  assert feature.input_ids == ids + padding
  assert feature.input_mask == [1] * len(tokens) + padding
  assert feature.segment_ids == (
    [0] * num_first + [1] * row["num_second"] + padding
  )
  assert feature.label_id == row["label_id"]
  assert feature.is_real_example


# The tasks


def read_table(path):
  """What tasks.txt describes: (lines, InputExamples) by (task, split, file)."""
  files = {}
  for part in path.read_text(encoding="utf-8").split("\n# ")[1:]:
    key, *lines = filter(None, part.split("\n"))
    key = tuple(key.split())
    rows = [x[2:].split("|") for x in lines if x.startswith("= ")]
    examples = [InputExample(*(x or None for x in row)) for row in rows]
    files[key] = ([x for x in lines if not x.startswith("= ")], examples)
  return files


FILES = read_table(OWN / "tasks.txt")
NLI = ("contradiction", "entailment", "neutral")
# Labels in the order of the logits, metrics, submissions without ".tsv".
ROWS = {
  "cola": ("01", "matthews_correlation accuracy", "CoLA"),
  "mnli": (NLI, "accuracy", "MNLI-m MNLI-mm"),
  "mrpc": ("01", "f1 accuracy", "MRPC"),
  "xnli": (NLI, "accuracy", ""),
  "sst-2": ("01", "accuracy", "SST-2"),
  "sts-b": ("", "pearson spearman", "STS-B"),
  "qqp": ("01", "f1 accuracy", "QQP"),
  "qnli": (("entailment", "not_entailment"), "accuracy", "QNLI"),
  "rte": (("entailment", "not_entailment"), "accuracy", "RTE"),
  "wnli": ("01", "accuracy", "WNLI"),
  "ax": (NLI, "matthews_correlation", "AX"),
  "tnews": (
    "100 101 102 103 104 106 107 108 109 110 112 113 114 115 116".split(),
    "accuracy",
    "",
  ),
  "afqmc": ("01", "accuracy", ""),
  "ocnli": (NLI, "accuracy", ""),
  "iflytek": ([str(number) for number in range(119)], "accuracy", ""),
}
EVERY_FILE = [
  (task.name, split, file.name)
  for task in classifier_data.TASKS.values()
  for split, files in task.files.items()
  for file in files
]


def write_file(folder, key):
  """Writes a task's file, and returns the examples in it."""
  lines, expected = FILES[key]
  path = folder / key[2]
  path.parent.mkdir(exist_ok=True)
  text = "".join(f"{line}\n" for line in lines).replace("<BOM>", "\ufeff")
  if path.suffix == ".tsv":
    text = text.replace("|", "\t")
  path.write_text(text, encoding="utf-8")
  return expected


@pytest.mark.parametrize("key", EVERY_FILE, ids="-".join)
def test_every_file_of_every_task(tmp_path, key):
  task = classifier_data.TASKS[key[0]]
  expected = write_file(tmp_path, key)
  examples = read_split(task, key[1], tmp_path)
  ids = classifier_data.label_ids(examples, task.labels, task.problem_type)
  for example, label_id, golden in zip(examples, ids, expected, strict=True):
    if golden.label is None:
      assert label_id == 0  # Upstream's stand-in.
    elif task.problem_type == "regression":
      golden = dataclasses.replace(golden, label=float(golden.label))
      assert label_id == golden.label
    else:
      assert label_id == task.labels.index(golden.label)
    assert example == golden


def test_no_file_of_a_task_that_is_gone():
  assert list(FILES) == EVERY_FILE


@pytest.mark.parametrize("name", classifier_data.TASKS)
def test_labels_metrics_and_submissions(name):
  task = classifier_data.TASKS[name]
  labels, metrics, submissions = ROWS[name]
  assert task.labels == tuple(labels)
  assert task.metrics == tuple(metrics.split())
  assert [*task.submissions.values()] == [
    f"{x}.tsv" for x in submissions.split()
  ]
  assert not submissions or [*task.submissions] == task.splits("test")
  assert task.problem_type == (
    "regression" if name == "sts-b" else "single_label"
  )


def test_splits_of_a_kind():
  mnli = classifier_data.TASKS["mnli"]
  assert mnli.splits("dev") == ["dev", "dev_mismatched"]
  assert mnli.splits("test") == ["test", "test_mismatched"]
  assert classifier_data.TASKS["ax"].splits("dev") == []


def test_xnli_in_another_language(tmp_path):
  task = classifier_data.xnli("de")
  write_file(tmp_path, ("xnli", "dev", "xnli.dev.tsv"))
  assert read_split(task, "dev", tmp_path) == [
    InputExample("dev-3", "Ja.", "Nein.", "contradiction", "3")
  ]
  path = tmp_path / "multinli" / "multinli.train.de.tsv"
  path.parent.mkdir()
  path.write_text("premise\thypo\tlabel\nJa.\tOk.\tentailment\n")
  assert read_split(task, "train", tmp_path) == [
    InputExample("train-1", "Ja.", "Ok.", "entailment", "1")
  ]
  with pytest.raises(ValueError, match="xnli.dev.tsv holds no example with 'x"):
    read_split(classifier_data.xnli("xx"), "dev", tmp_path)


def test_the_first_file_that_exists_is_read(tmp_path):
  task = classifier_data.TASKS["tnews"]
  assert classifier_data.find_file(task, "dev", str(tmp_path)) is None
  write_file(tmp_path, ("tnews", "dev", "toutiao_category_dev.txt"))
  path, layout = classifier_data.find_file(task, "dev", str(tmp_path))
  assert (path[-13:], layout.file_format) == ("egory_dev.txt", "toutiao")
  write_file(tmp_path, ("tnews", "dev", "dev.json"))
  path, layout = classifier_data.find_file(task, "dev", f"file://{tmp_path}")
  assert (path, layout.file_format) == (f"file://{tmp_path}/dev.json", "jsonl")
  assert len(tables.read_examples(path, layout, "dev")) == 1
  assert classifier_data.default_layout(task, "dev", "mine.json") == layout


@pytest.mark.parametrize(
  ("name", "file_format"),
  [("a.txt", "toutiao"), ("a.json", "jsonl"), ("a", "jsonl")],
)
def test_another_files_layout_is_that_of_its_extension(name, file_format):
  task = classifier_data.TASKS["tnews"]
  layout = classifier_data.default_layout(task, "train", f"some.where/{name}")
  assert layout.file_format == file_format


def test_columns_of_labels_come_in_the_models_order(tmp_path):
  path = tmp_path / "labels.txt"
  path.write_text("rude\ntoxic\n")
  layout = tables.Layout("text", label=("toxic", "rude"))
  task = classifier_data.own_task("csv", layout, "multi_label")
  assert task.labels == ("toxic", "rude")
  saved = classifier_data.with_saved_labels(task, str(path))
  assert saved.labels == ("rude", "toxic")
  path.write_text("rude\nkind\n")
  with pytest.raises(ValueError, match="toxic, rude, but .* rude, kind apart"):
    classifier_data.with_saved_labels(task, str(path))


@pytest.mark.parametrize(
  "name, expected",
  [
    ("MRPC", "mrpc"),
    ("SST-2", "sst-2"),
    ("sst2", "sst-2"),
    ("sst_2", "sst-2"),
    ("STSB", "sts-b"),
  ],
)
def test_tasks_are_found_by_any_spelling(name, expected):
  assert classifier_data.find_task(name).name == expected


# INDEX.md of the development data counts these.
@pytest.mark.parametrize(
  "folder, name, counts",
  [
    ("mrpc", "mrpc", {"train": 3668, "dev": 408, "test": 1725}),
    ("cola", "cola", {"train": 8551, "dev": 1043, "test": 1063}),
    ("sst2", "sst-2", {"train": 67349, "dev": 872}),
    ("stsb", "sts-b", {"train": 5749, "dev": 1500, "test": 1379}),
    ("tnews", "tnews", {"train": 1000, "dev": 1000, "test": 1000}),
  ],
)
def test_real_files(folder, name, counts):
  if not (SHARED / "data" / folder).is_dir():
    pytest.skip("the development data ../shared is not there")
  task = classifier_data.TASKS[name]
  for split, count in counts.items():
    examples = read_split(task, split, SHARED / "data" / folder)
    assert len(examples) == count
    assert all(x.text_a for x in examples)
    found = {x.label for x in examples}
    if split == "test":
      assert found == {None}
    elif task.labels:
      assert found <= set(task.labels)
    else:
      assert (min(found), max(found)) == (0, 5)


# The user's own files


@pytest.fixture
def read(tmp_path):
  """A function from a file's format and content to its examples."""

  def read_content(
    file_format,
    content,
    split="train",
    problem_type="single_label",
    labels=None,
    skip_bad_rows=False,
    **columns,
  ):
    layout = Layout(**{"text_a": "text", "label": "label", **columns})
    task = classifier_data.own_task(file_format, layout, problem_type)
    path = tmp_path / f"{split}.{file_format}"
    if isinstance(content, str):
      content = content.encode()
    path.write_bytes(content)
    path, layout = classifier_data.require_file(task, split, str(tmp_path))
    return tables.read_examples(
      path, layout, split, problem_type, labels, skip_bad_rows
    )

  return read_content


def texts_and_labels(examples):
  return [(x.text_a, x.label) for x in examples]


# One file per format, of these examples.
TWO = [
  InputExample("train-0", "a b", "c", "x", "0"),
  InputExample("train-1", "d", "e f", "y", "1"),
]
TABLE = "label\ttext\tsecond\nx\ta b\tc\ny\td\te f\n"
CONTENT = {
  "tsv": TABLE,
  "csv": TABLE.replace("\t", ","),
  "jsonl": (
    '{"label": "x", "text": "a b", "second": "c"}\n'
    '{"text": "d", "second": "e f", "more": [1], "label": "y"}\n'
  ),
}
NUMBERED = CONTENT["jsonl"].replace("text", "1").replace("label", "-3")


@pytest.mark.parametrize(
  "file_format, content, columns",
  [
    ("tsv", CONTENT["tsv"], {}),
    ("csv", CONTENT["csv"], {}),
    ("jsonl", CONTENT["jsonl"], {}),
    ("tsv", CONTENT["tsv"], {"text_a": 1, "text_b": 2, "label": 0}),
    ("csv", CONTENT["csv"], {"text_a": "1", "text_b": "2", "label": "0"}),
    ("csv", CONTENT["csv"], {"text_a": -2, "text_b": "-1", "label": "-3"}),
    # A name goes before a number.
    ("csv", CONTENT["csv"].replace("text", "0", 1), {"text_a": "0"}),
    ("jsonl", NUMBERED, {"text_a": "1", "label": "-3"}),
  ],
)
def test_columns_by_name_and_by_number(read, file_format, content, columns):
  columns = {"text_b": "second", **columns}
  assert read(file_format, content, **columns) == TWO


@pytest.mark.parametrize("file_format", ["tsv", "csv"])
@pytest.mark.parametrize(
  "columns", [(1, 2, 0), ("1", "2", "0"), (-2, -1, -3), ("-2", "-1", "-3")]
)
def test_tables_without_a_header(read, file_format, columns):
  content = CONTENT[file_format].partition("\n")[2]
  text_a, text_b, label = columns
  examples = read(
    file_format,
    content,
    text_a=text_a,
    text_b=text_b,
    label=label,
    has_header=False,
  )
  assert examples == TWO


@pytest.mark.parametrize("file_format", classifier_data.OWN_FORMATS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("ending", ["", "\n", "\n\n"])
def test_encodings_and_line_ends(read, file_format, line_end, mark, ending):
  content = mark + CONTENT[file_format].rstrip("\n") + ending
  content = content.replace("\n", line_end)
  assert read(file_format, content, text_b="second") == TWO


def test_a_byte_order_mark_before_the_first_row(read):
  columns = {"text_a": 1, "label": 0, "has_header": False}
  (example,) = read("csv", "\ufeffx,a\n", **columns)
  assert example.label == "x"
  # Only one is the file's.
  (example,) = read("tsv", "\ufeff\ufeffx\ta\n", **columns)
  assert example.label == "\ufeffx"


def test_blank_lines_do_not_count_as_rows(read):
  for file_format, content in CONTENT.items():
    content = "\n\n" + content.replace("\n", "\n\n")
    assert read(file_format, content, text_b="second") == TWO


def test_quotes_of_csv(read):
  content = (
    'text,label\n"a, b",x\n"he said ""no""",y\n"two\nlines",x\n"",y\n'
    'it\'s 3" long,x\n"  a ",y\n"one\r\ntwo\rthree",x\n'
  )
  assert texts_and_labels(read("csv", content)) == [
    ("a, b", "x"),
    ('he said "no"', "y"),
    ("two\nlines", "x"),
    ("", "y"),
    ("it's 3\" long", "x"),
    ("  a ", "y"),
    ("one\r\ntwo\rthree", "x"),
  ]


def test_quotes_of_tsv_are_characters(read):
  content = 'text\tlabel\n"a\tx\nb"\ty\n"c ""d"" e"\tx\n'
  assert texts_and_labels(read("tsv", content)) == [
    ('"a', "x"),
    ('b"', "y"),
    ('"c ""d"" e"', "x"),
  ]


# What str.splitlines would split at, beside line feed and carriage return.
SEPARATORS = "\x0b \x0c \x1c \x1d \x1e \x85 \u2028 \u2029".split(" ")


@pytest.mark.parametrize("file_format", ["tsv", "csv", "jsonl"])
def test_other_separators_do_not_end_a_row(read, file_format):
  # JSON allows no character below 0x20 in a string.
  chars = [x for x in SEPARATORS if file_format != "jsonl" or x >= " "]
  text = "a" + "b".join(chars) + "c"
  content = CONTENT[file_format].replace("a b", text)
  examples = read(file_format, content, text_b="second")
  assert examples == [dataclasses.replace(TWO[0], text_a=text), TWO[1]]


@pytest.mark.parametrize("file_format", ["tsv", "csv", "jsonl"])
def test_long_texts(read, file_format):
  # Python's csv module stops at 131,072 characters unless told otherwise.
  text = "word " * 30000
  content = CONTENT[file_format].replace("a b", text)
  assert read(file_format, content)[0].text_a == text


def test_long_texts_of_glue(tmp_path):
  text = "word " * 30000
  (tmp_path / "dev.tsv").write_text(f"a\t1\t\t{text}\n", encoding="utf-8")
  cola = classifier_data.TASKS["cola"]
  assert read_split(cola, "dev", tmp_path)[0].text_a == text


@pytest.mark.parametrize(
  "written, label",
  [('" x "', "x"), ("1", "1"), ("-2", "-2"), ("1.5", "1.5"), ("true", "true")],
)
def test_labels_of_json(read, written, label):
  content = f'{{"text": "a", "label": {written}}}\n'
  assert read("jsonl", content)[0].label == label
  assert read("jsonl", content, "test")[0].label is None


@pytest.mark.parametrize(
  "file_format, content, columns, labels",
  [
    ("csv", 'text,label\na,"x, y"\nb,\nc,z\n', {}, "xyz"),
    ("tsv", "text\tlabel\na\tx,y,\nb\t \nc\tz\n", {}, "xyz"),
    (
      "tsv",
      "text\tlabel\na\tx;y\nb\t\nc\tz\n",
      {"label_separator": ";"},
      "xyz",
    ),
    (
      "jsonl",
      '{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": []}\n'
      '{"text": "c", "label": ["z"]}\n',
      {},
      "xyz",
    ),
    (
      "jsonl",
      '{"text": "a", "label": [1, true]}\n{"text": "b", "label": ""}\n'
      '{"text": "c", "label": 7}\n',
      {},
      ("1", "true", "7"),
    ),
    (
      "csv",
      "text,x,y,z\na,1,1.0,0\nb,0,0,0\nc,false,False,TRUE\n",
      {"label": ("x", "y", "z")},
      "xyz",
    ),
    (
      "tsv",
      "a\t1\t1\t0\nb\t0\t0\t0\nc\t0\t0\t1\n",
      {"text_a": 0, "label": ("1", "2", "-1"), "has_header": False},
      ("1", "2", "-1"),
    ),
    (
      "jsonl",
      '{"text": "a", "x": 1, "y": true, "z": 0}\n'
      '{"text": "b", "x": 0, "y": false, "z": "0"}\n'
      '{"text": "c", "x": 0.0, "y": false, "z": 1.0}\n',
      {"label": ("x", "y", "z")},
      "xyz",
    ),
  ],
)
def test_several_labels(read, file_format, content, columns, labels):
  examples = read(file_format, content, problem_type="multi_label", **columns)
  x, y, z = labels
  assert texts_and_labels(examples) == [("a", (x, y)), ("b", ()), ("c", (z,))]
  ids = classifier_data.label_ids(examples, labels, "multi_label")
  assert ids.dtype == np.float32
  assert ids.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_scores(read):
  examples = read(
    "csv", "text,label\na,1.5\nb, -2 \nc,3e-1\n", problem_type="regression"
  )
  assert texts_and_labels(examples) == [("a", 1.5), ("b", -2.0), ("c", 0.3)]
  examples += read(
    "jsonl", '{"text": "d", "label": 4}\n', problem_type="regression"
  )
  ids = classifier_data.label_ids(examples, (), "regression")
  assert ids.dtype == np.float32
  assert ids.tolist() == [1.5, -2.0, np.float32(0.3), 4.0]


def test_labels_that_are_not_known_are_0():
  unknown = [InputExample(None, "a")]
  ids = classifier_data.label_ids(unknown, "xy", "single_label")
  assert (ids.dtype, ids.tolist()) == (np.int32, [0])
  ids = classifier_data.label_ids(unknown, "xy", "multi_label")
  assert ids.tolist() == [[0, 0]]
  ids = classifier_data.label_ids(unknown, (), "regression")
  assert ids.tolist() == [0]


def test_a_test_file_needs_no_label(read):
  (example,) = read("csv", "text\na\n", "test")
  assert example == InputExample("test-0", "a", None, None, "0")
  (example,) = read("csv", "text,label\na,\n", "test", labels=("x",))
  assert example.label is None


def test_rows_are_called_by_the_id_column(read):
  content = '{"id": 12, "text": "a"}\n{"id": "z", "text": "b"}\n'
  examples = read("jsonl", content, "test", row_id="id")
  assert [x.row_id for x in examples] == ["12", "z"]
  assert [x.guid for x in examples] == ["test-12", "test-z"]
  examples = read("csv", "id,text\n0012,a\n", "test", row_id="id")
  assert examples[0].row_id == "0012"


@pytest.mark.parametrize(
  "problem_type, metrics",
  [
    ("single_label", ("accuracy", "macro_f1")),
    ("multi_label", ("micro_f1", "macro_f1", "subset_accuracy")),
    ("regression", ("pearson", "spearman")),
  ],
)
def test_tasks_of_own_files(problem_type, metrics):
  task = classifier_data.own_task("csv", Layout("text"), problem_type)
  assert (task.problem_type, task.metrics) == (problem_type, metrics)
  assert [x for (x,) in task.files.values()] == [
    classifier_data.DataFile(f"{split}.csv", Layout("text", file_format="csv"))
    for split in ("train", "dev", "test")
  ]


# Labels


def inferred(labels, problem_type="single_label"):
  examples = [InputExample(None, "a", label=label) for label in labels]
  return classifier_data.infer_labels("train.csv", examples, problem_type)


@pytest.mark.parametrize(
  "labels, expected",
  [
    ("b a b", "a b"),
    ("10 9 -1 2 9", "-1 2 9 10"),
    ("10.0 2.0", "2.0 10.0"),
    ("x 10 2 -x --5", "2 10 --5 -x x"),
    ("nan Infinity 1", "1 Infinity nan"),
    ("É e Z", "Z e É"),
  ],
)
def test_labels_are_numbers_by_value_then_words(labels, expected):
  assert inferred(labels.split()) == tuple(expected.split())


def test_labels_of_several_a_row():
  found = inferred([("b", "10"), (), ("9",)], "multi_label")
  assert found == ("9", "10", "b")
  assert inferred([("a",)], "multi_label") == ("a",)
  # Half a star may be one of several tags.
  assert inferred([("0.5",), ("1",)], "multi_label") == ("0.5", "1")


@pytest.mark.parametrize(
  "labels, problem_type, message",
  [
    (["x", "x"], "single_label", "all examples have the label 'x'"),
    (["1.0", "2.5"], "single_label", "'2.5' is .* --problem_type=regression"),
    ([(), ()], "multi_label", "no row has a label; check --label_column"),
  ],
)
def test_labels_that_cannot_be_learned(labels, problem_type, message):
  with pytest.raises(ValueError, match=f"^train.csv: .*{message}"):
    inferred(labels, problem_type)


def test_labels_are_taken_from_the_training_file_once():
  task = classifier_data.own_task("csv", Layout("text", label="label"))
  examples = [InputExample(None, "a", label=label) for label in "ba"]
  with_labels = classifier_data.with_training_labels(task, "p", examples)
  assert with_labels.labels == ("a", "b")
  assert with_labels == dataclasses.replace(task, labels=("a", "b"))
  assert classifier_data.with_training_labels(with_labels, "p", []) == (
    with_labels
  )
  scores = classifier_data.own_task("csv", Layout("text"), "regression")
  assert classifier_data.with_training_labels(scores, "p", []) == scores
  assert classifier_data.with_saved_labels(scores, None) == scores


def test_columns_of_flags_are_the_labels():
  # One that is never 1 in the training file is a label all the same.
  layout = Layout("text", label=("y", "x", "3"))
  task = classifier_data.own_task("csv", layout, "multi_label")
  examples = [InputExample(None, "a", label=("x",))]
  task = classifier_data.with_training_labels(task, "p", examples)
  assert task.labels == ("y", "x", "3")


def test_saved_labels_are_the_same(tmp_path):
  labels = ("0", "#1", "two words", "a\u2028b", "c\x85d", "\u4e2d", "\ufeff")
  path = tmp_path / "labels.txt"
  path.write_text(
    labels_module.format_labels(labels), encoding="utf-8", newline=""
  )
  task = classifier_data.own_task("csv", Layout("text", label="label"))
  saved = classifier_data.with_saved_labels(task, str(path))
  assert saved.labels == labels
  mrpc = classifier_data.TASKS["mrpc"]
  assert classifier_data.with_saved_labels(mrpc, str(path)) == mrpc
  with pytest.raises(FileNotFoundError, match="or a config.*; train with"):
    classifier_data.with_saved_labels(task, None)


# Rows that cannot be used

GOOD = {
  "tsv": ("text\tlabel", "a\t1", "b\t0"),
  "csv": ("text,label", "a,1", '"b",0'),
  "jsonl": ('{"text":"a","label":1}', '{"text": "b", "label": 0}'),
}
SINGLE, MULTI, SCORE = classifier_data.PROBLEM_TYPES
BAD_ROWS = [
  ("tsv", SINGLE, "c", "1 fields, but the first row has 2"),
  ("tsv", SINGLE, "c\t1\t", "3 fields, but the first row has 2"),
  ("csv", SINGLE, "c", "1 fields, but the first row has 2"),
  ("csv", SINGLE, "c, d,1", "3 fields, but the first row has 2"),
  ("jsonl", SINGLE, '{"text": "c"}', "no column 'label'; it has the keys 'tex"),
  ("jsonl", SINGLE, "{}", "no column 'label'; it has the keys none"),
  ("jsonl", SINGLE, '{"label": 1}', "no column 'text'; it has the keys 'label"),
  ("tsv", SINGLE, "c\t2", "unknown label '2'; the labels are 0, 1"),
  ("jsonl", SINGLE, '{"text": "c", "label": null}', "the label is empty"),
  ("jsonl", SINGLE, '{"text": "c", "label": true}', "unknown label 'true'"),
  ("jsonl", SINGLE, '{"text": "c", "label": [1]}', r"label \[1\] is not a sin"),
  ("tsv", SINGLE, "c\t", "the label is empty"),
  ("csv", SINGLE, "c, ", "the label is empty"),
  ("csv", SINGLE, 'c,"1\n0"', r"label '1\\n0' holds a line break"),
  ("jsonl", SINGLE, '{"text": "c", "label": "1\\r0"}', "holds a line break"),
  ("jsonl", SINGLE, '{"text": "c", "label": 1', r"not valid JSON \(Expecting"),
  ("jsonl", SINGLE, '{"label": ' + "1" * 5000 + "}", "not valid JSON"),
  ("jsonl", SINGLE, "[" * 100000, "not valid JSON"),
  ("jsonl", SINGLE, '["c", 1]', "not a JSON object"),
  ("jsonl", SINGLE, "null", "not a JSON object"),
  ("jsonl", SINGLE, '{"text": 7, "label": 1}', "column 'text' holds 7, not a"),
  ("jsonl", SINGLE, '{"text": null, "label": 1}', "holds None, not a text"),
  ("csv", SINGLE, '"c" d,1', "not valid CSV"),
  ("tsv", MULTI, "c\t1,2", "unknown label '2'"),
  ("csv", MULTI, 'c,"0,1\n0"', r"label '1\\n0' holds a line break"),
  ("jsonl", MULTI, '{"text": "c", "label": [[1]]}', r"\[1\] is not a single"),
  ("jsonl", MULTI, '{"text": "c", "label": [""]}', "the label is empty"),
  ("jsonl", MULTI, '{"text": "c", "label": null}', "the label is empty"),
  ("tsv", SCORE, "c\tgood", "the label 'good' is no number"),
  ("csv", SCORE, 'c,"1,5"', "the label '1,5' is no number"),
  ("tsv", SCORE, "c\tnan", "the label 'nan' is no number"),
  ("tsv", SCORE, "c\tinf", "the label 'inf' is no number"),
  ("tsv", SCORE, "c\t", "the label '' is no number"),
  ("jsonl", SCORE, '{"text": "c", "label": [1]}', r"label \[1\] is no number"),
  ("jsonl", SCORE, '{"text": "c", "label": 1%s}' % ("0" * 400), "is no number"),
]


ODD_TEXTS = {
  "NUL": "\0",
  "NULs": "a\0b" * 3,
  "CR": "a\rb",
  "other line ends": "a\u2028b\x0bc\x85d",
  "a mark": "\ufeff",
  "10 MB": "word " * 2_000_000,
  "a word of 10 MB": "x" * 10_000_000,
}


@pytest.mark.parametrize("name", ODD_TEXTS)
@pytest.mark.parametrize("file_format", GOOD)
def test_an_odd_text_is_read_and_leaves_its_neighbours_alone(
  tmp_path, file_format, name
):
  text = ODD_TEXTS[name]
  layout = Layout("text", label="label", file_format=file_format)
  row = {"tsv": f"{text}\t1", "csv": f'"{text}",1'}.get(
    file_format, json.dumps({"text": text, "label": 1})
  )
  header, *others = GOOD[file_format]
  path = tmp_path / "train"

  def read_texts(lines):
    path.write_text("\n".join(lines), "utf-8", newline="")
    examples = tables.read_examples(path, layout, "train")
    return [example.text_a for example in examples]

  expected = read_texts([header, *others])
  found = read_texts([header, row, *others])
  # The first line of JSON lines is a row already.
  assert found.pop(file_format == "jsonl") == text
  assert found == expected


@pytest.mark.parametrize("content", ["", "a\nb\na\n", "a\n\nb\n"])
def test_labels_that_no_run_wrote_are_refused(tmp_path, content):
  path = tmp_path / "labels.txt"
  path.write_text(content)
  with pytest.raises(ValueError, match="labels.txt should hold .* each once"):
    labels_module.read_labels(str(path))


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize(
  "file_format, problem_type, row, message",
  BAD_ROWS,
  ids=[f"{row[0]}-{row[3]}" for row in BAD_ROWS],
)
def test_bad_rows(read, capsys, place, file_format, problem_type, row, message):
  *header, first, second = GOOD[file_format]
  lines = {
    "first": [*header, row, first, second],
    "middle": [*header, first, row, second],
    "last": [*header, first, second, row],
  }[place]
  content = "\n".join(lines)
  kwargs = {
    "problem_type": problem_type,
    "labels": None if problem_type == SCORE else ("0", "1"),
  }
  where = f"^/.*/train.{file_format}, line {lines.index(row) + 1}: .*{message}"
  with pytest.raises(ValueError, match=where) as error:
    read(file_format, content, **kwargs)
  assert str(error.value).endswith("; mend the row, or pass --skip_bad_rows")
  assert capsys.readouterr().out == ""

  examples = read(file_format, content, skip_bad_rows=True, **kwargs)
  labels = {SINGLE: ["1", "0"], MULTI: [("1",), ("0",)], SCORE: [1.0, 0.0]}
  assert [x.text_a for x in examples] == ["a", "b"]
  assert [x.label for x in examples] == labels[problem_type]
  # A row's number stays what it is in the file.
  numbers = [lines.index(x) - len(header) for x in (first, second)]
  assert [x.row_id for x in examples] == list(map(str, numbers))
  printed = capsys.readouterr().out
  assert f"train.{file_format}: 1 bad rows skipped\n" in printed
  assert f"line {lines.index(row) + 1}: " in printed


@pytest.mark.parametrize("file_format", ["tsv", "csv", "jsonl"])
def test_bad_flags(read, file_format):
  content = {
    "tsv": "text\tx\ty\na\t1\t2\n",
    "csv": "text,x,y\na,0,2\n",
    "jsonl": '\n{"text": "a", "x": true, "y": 2}\n',
  }[file_format]
  with pytest.raises(ValueError, match="line 2: .* column 'y' holds '?2'?, no"):
    read(file_format, content, problem_type=MULTI, label=("x", "y"))


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("file_format", ["tsv", "csv", "jsonl"])
def test_line_numbers(read, file_format, line_end):
  *header, first, second = GOOD[file_format]
  if file_format == "csv":
    first = '"a\n""\n",1'
  lines = ["", *header, "", first, second, "", "c", ""]
  content = "\n".join(lines)
  number = content[: content.index("\nc\n")].count("\n") + 2
  with pytest.raises(ValueError, match=f", line {number}: "):
    read(file_format, content.replace("\n", line_end))


def test_a_carriage_return_in_quotes_ends_no_line(read):
  # As in every editor, where lines end with line feeds.
  with pytest.raises(ValueError, match=", line 3: 1 fields"):
    read("csv", 'text,label\n"a\rb",1\nc\n')


def test_a_quote_that_is_not_closed(read, capsys):
  content = 'text,label\na,1\n"b,0\nc,1\nd,0\n'
  with pytest.raises(ValueError, match=r", line 3: not valid CSV \(unexpected"):
    read("csv", content)
  examples = read("csv", content, skip_bad_rows=True)
  assert [x.text_a for x in examples] == ["a"]
  assert "line 3: not valid CSV" in capsys.readouterr().out


def test_rows_of_glue_may_have_more_columns_but_not_fewer(tmp_path):
  path = tmp_path / "train.tsv"
  lines = ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"]
  lines += ["0\t1\t2\tWhy?\tWho?\t0\tmore", "1\t1\t2\tWhy?"]
  path.write_text("\n".join(lines), encoding="utf-8")
  with pytest.raises(ValueError, match=", line 3: no column 5; it has 4 field"):
    read_split(classifier_data.TASKS["qqp"], "train", tmp_path)


@pytest.mark.parametrize("file_format", ["tsv", "csv", "jsonl", "glue"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_files_that_are_not_utf8(tmp_path, file_format, line_end):
  path = tmp_path / "latin"
  path.write_bytes(line_end.join([b"text", b"", b"b\xe9", b"c"]))
  # GLUE's lines end as upstream's.
  line = 1 if (file_format, line_end) == ("glue", b"\r") else 3
  layout = Layout("text", file_format=file_format)
  with pytest.raises(
    ValueError, match=rf"latin, line {line}: not UTF-8 \(byte"
  ):
    tables.read_examples(path, layout, "test", skip_bad_rows=True)


def test_the_first_few_bad_rows_are_shown(read, capsys):
  rows = [f"{row}\t{row % 2 or 'bad'}" for row in range(20)]
  content = "\n".join(["text\tlabel", *rows])
  examples = read("tsv", content, labels=("1",), skip_bad_rows=True)
  assert [x.text_a for x in examples] == list(map(str, range(1, 20, 2)))
  printed = capsys.readouterr().out
  assert "train.tsv: 10 bad rows skipped\n" in printed
  assert re.findall(r"tsv, line (\d+): ", printed) == [*"2468", "10"]


def test_unknown_labels_among_many(read):
  labels = [f"l{number:02}" for number in range(30)]
  with pytest.raises(ValueError, match="the labels are l00, .*, l09, ...;"):
    read("csv", "text,label\na,x\n", labels=labels)


# Files that cannot be used


@pytest.mark.parametrize(
  "content, columns, message",
  [
    ("body,stars\na,1\n", {}, "no column 'text'; its columns are 'body', 'st"),
    ("text,stars\na,1\n", {}, "no column 'label'; its columns are 'text', 's"),
    ("text,label\na,1\n", {"text_b": "b"}, "no column 'b'; its columns are"),
    ("text,label\na,1\n", {"row_id": "id"}, "no column 'id'; its columns"),
    ("text,label\na,1\n", {"label": 2}, "no column 2; its columns are"),
    ("text,label\na,1\n", {"label": "-3"}, "no column '-3'; its columns are"),
    ("text;label\na;1\n", {}, "no column 'text'; its columns are 'text;label'"),
    ("a,1\n", {"has_header": False}, "no header to find column 'text' in; col"),
    ("a,1\n", {"has_header": False, "text_a": 0}, "find column 'label' in; co"),
    ('"a" b,label\na,1\n', {}, "line 1: not valid CSV .*; mend the header"),
    ('text,"label\na,1\n', {}, "line 1: not valid CSV .*; mend the header"),
    ("", {}, "train.csv holds no example"),
    ("\n\n", {}, "train.csv holds no example"),
    ("text,label\n", {}, "train.csv holds no example"),
    ("text,label", {}, "train.csv holds no example"),
    ("text,label\na\n", {}, "train.csv holds no example"),
  ],
)
def test_files_without_examples(read, content, columns, message):
  with pytest.raises(ValueError, match=message):
    read("csv", content, skip_bad_rows=True, **columns)


def test_a_bad_first_row_without_a_header(read):
  columns = {"text_a": 0, "label": 1, "has_header": False}
  content = '"a" b,1\nc,0\n'
  with pytest.raises(ValueError, match="line 1: not valid CSV .* --skip_bad_r"):
    read("csv", content, **columns)
  (example,) = read("csv", content, skip_bad_rows=True, **columns)
  assert (example.text_a, example.row_id) == ("c", "1")


def test_files_that_are_missing(tmp_path):
  find = classifier_data.require_file
  tnews = classifier_data.TASKS["tnews"]
  with pytest.raises(
    FileNotFoundError,
    match=f"^{tmp_path} has no dev.json or toutiao_category_dev.txt, the dev "
    "file of task tnews$",
  ):
    find(tnews, "dev", str(tmp_path))
  with pytest.raises(
    FileNotFoundError, match="no directory .*/none; check --d"
  ):
    find(tnews, "dev", str(tmp_path / "none"))
  layout = Layout("text", file_format="csv")
  with pytest.raises(FileNotFoundError, match="none.csv: no such file"):
    tables.read_examples(tmp_path / "none.csv", layout, "test")


@pytest.mark.parametrize("split", ["train", "dev"])
def test_ax_is_for_prediction(tmp_path, split):
  ax = classifier_data.TASKS["ax"]
  with pytest.raises(ValueError, match=f"ax has no {split} file; .* as mnli"):
    classifier_data.require_file(ax, split, str(tmp_path))
  with pytest.raises(ValueError, match=f"ax has no {split} file"):
    classifier_data.default_layout(ax, split, "ax.tsv")
  assert classifier_data.find_file(ax, split, str(tmp_path)) is None


def test_a_task_that_is_not_there():
  with pytest.raises(ValueError, match="^Task not found: glue; .*ax, .*csv, "):
    classifier_data.find_task("glue")


# Sequences


class NumberTokenizer:
  """Texts are numbers, which are their ids."""

  def encode(self, text):
    return list(map(int, text.split()))

  def convert_tokens_to_ids(self, tokens):
    return [{"[CLS]": 1, "[SEP]": 2}[token] for token in tokens]


CLS, SEP = 1, 2
A, B = 100, 1000  # First ids of the first text, and of the second.


def pair(num_a, num_b):
  texts = [
    " ".join(map(str, range(first, first + count)))
    for first, count in ((A, num_a), (B, num_b))
  ]
  return InputExample(None, *texts)


def fitted(example, max_seq_length, long_text):
  """Pairs (ids of the first text, of the second) of an example's sequences."""
  sequences, owners = classifier_data.tokenize_examples(
    [example], NumberTokenizer(), max_seq_length, long_text
  )
  assert owners.tolist() == [0] * len(sequences)
  assert sequences.lengths.max() <= max_seq_length
  return [split_ids(*packed) for packed in unpadded(sequences)]


def split_ids(ids, segments):
  """Takes a sequence apart, and checks how it was put together."""
  a = [x for x in ids if A <= x < B]
  b = [x for x in ids if x >= B]
  assert ids == [CLS, *a, SEP, *b, SEP] if b else ids == [CLS, *a, SEP]
  assert segments == [0] * (len(a) + 2) + [1] * (len(ids) - len(a) - 2)
  return a, b


def truncate_seq_pair(num_a, num_b, room):
  """Upstream's _truncate_seq_pair, on numbers of tokens."""
  while num_a + num_b > room:
    if num_a > num_b:
      num_a -= 1
    else:
      num_b -= 1
  return num_a, num_b


def test_truncation_is_the_originals():
  for num_a, num_b, max_seq_length in itertools.product(
    range(14), range(14), range(3, 25)
  ):
    room = max_seq_length - (3 if num_b else 2)
    keep = sequences_module.truncate_pair(num_a, num_b, max_seq_length)
    assert keep == truncate_seq_pair(num_a, num_b, room)


# The cases of truncate_seq_pair.json: two lengths, the room, what is kept.
@pytest.mark.parametrize(
  "num_a, num_b, room, keep",
  [
    (5, 5, 10, (5, 5)),
    (5, 5, 9, (5, 4)),
    (5, 5, 7, (4, 3)),
    (10, 2, 6, (4, 2)),
    (2, 10, 6, (2, 4)),
    (10, 0, 4, (4, 0)),
    (3, 3, 0, (0, 0)),
    (7, 4, 1, (1, 0)),
  ],
)
def test_some_truncations_of_the_original(num_a, num_b, room, keep):
  max_seq_length = room + (3 if num_b else 2)
  assert sequences_module.truncate_pair(num_a, num_b, max_seq_length) == keep
  ((a, b),) = fitted(pair(num_a, num_b), max_seq_length, "truncate")
  assert a == list(range(A, A + keep[0]))
  assert b == list(range(B, B + keep[1]))


def test_all_truncations_of_the_original(goldens):
  path = goldens / "classifier" / "truncate_seq_pair.json"
  for row in json.loads(path.read_text(encoding="utf-8")):
    max_seq_length = row["max_length"] + (3 if row["len_b"] else 2)
    keep = sequences_module.truncate_pair(
      row["len_a"], row["len_b"], max_seq_length
    )
    assert row["a"] == list(range(keep[0]))
    assert row["b"] == list(range(100, 100 + keep[1]))


@pytest.mark.parametrize("long_text", classifier_data.LONG_TEXT)
@pytest.mark.parametrize(
  "num_a, num_b, max_seq_length",
  [(0, 0, 3), (8, 0, 10), (4, 3, 10), (0, 7, 10)],
)
def test_what_fits_stays(long_text, num_a, num_b, max_seq_length):
  ((a, b),) = fitted(pair(num_a, num_b), max_seq_length, long_text)
  assert a == list(range(A, A + num_a))
  assert b == list(range(B, B + num_b))


@pytest.mark.parametrize(
  "num_a, num_b, max_seq_length, head_a, tail_a, head_b, tail_b",
  [
    (9, 0, 10, 2, 6, 0, 0),
    (600, 0, 512, 128, 382, 0, 0),
    (20, 3, 14, 2, 6, 3, 0),
    (3, 20, 14, 3, 0, 2, 6),
    (20, 20, 14, 2, 4, 2, 3),
    (20, 20, 4, 1, 0, 0, 0),
    (5, 5, 3, 0, 0, 0, 0),
  ],
)
def test_head_and_tail(
  num_a, num_b, max_seq_length, head_a, tail_a, head_b, tail_b
):
  ((a, b),) = fitted(pair(num_a, num_b), max_seq_length, "head_tail")
  ids_a, ids_b = range(A, A + num_a), range(B, B + num_b)
  assert a == [*ids_a[:head_a], *ids_a[num_a - tail_a :]]
  assert b == [*ids_b[:head_b], *ids_b[num_b - tail_b :]]


def test_sliding_windows():
  assert fitted(pair(9, 0), 6, "sliding") == [
    ([100, 101, 102, 103], []),
    ([102, 103, 104, 105], []),
    ([104, 105, 106, 107], []),
    ([106, 107, 108], []),
  ]
  assert fitted(pair(2, 7), 9, "sliding") == [
    ([100, 101], [1000, 1001, 1002, 1003]),
    ([100, 101], [1002, 1003, 1004, 1005]),
    ([100, 101], [1004, 1005, 1006]),
  ]


def test_windows_cover_every_token():
  for num_a, num_b, max_seq_length in itertools.product(
    range(0, 40, 3), range(0, 40, 4), range(4, 30, 3)
  ):
    windows = fitted(pair(num_a, num_b), max_seq_length, "sliding")
    room = max_seq_length - (3 if num_b else 2)
    if num_a + num_b <= room:
      assert len(windows) == 1
      continue
    slides_a = num_a >= num_b
    first, count = (A, num_a) if slides_a else (B, num_b)
    other, num_other = (B, num_b) if slides_a else (A, num_a)
    # The shorter text is in all of them, unless it takes over half the room.
    shorts = [b if slides_a else a for a, b in windows]
    num_short = min(num_other, room // 2)
    assert shorts == [list(range(other, other + num_short))] * len(windows)
    longs = [a if slides_a else b for a, b in windows]
    width = room - num_short
    stride = max(1, width // 2)
    assert longs == [
      list(range(start, min(start + width, first + count)))
      for start in range(first, longs[-1][0] + 1, stride)
    ]
    assert longs[-1][-1] == first + count - 1
    assert len(longs) == 1 or longs[-2][-1] < first + count - 1


def test_no_room_for_windows():
  assert fitted(pair(5, 5), 3, "sliding") == [([], [])]


def test_owners_of_windows():
  examples = [pair(2, 0), pair(9, 0), pair(0, 0), pair(1, 7)]
  sequences, owners = classifier_data.tokenize_examples(
    examples, NumberTokenizer(), 6, "sliding"
  )
  assert owners.dtype == np.int32
  assert owners.tolist() == [0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3]
  for owner, packed in zip(owners, unpadded(sequences), strict=True):
    a, b = split_ids(*packed)
    assert bool(a) == (owner != 2)
    assert bool(b) == (owner == 3)


def test_a_split_repeats_labels_for_windows():
  layout = Layout("text", label="label")
  task = classifier_data.own_task("csv", layout, "regression")
  examples = [pair(2, 0), pair(20, 0), pair(0, 3)]
  for label, example in enumerate(examples):
    example.label = label / 2
  for pad_to_max_length, buckets in ((False, (8, 12)), (True, (12,))):
    split = classifier_data.make_split(
      examples, task, NumberTokenizer(), 12, "sliding", pad_to_max_length
    )
    assert split.examples == examples
    assert split.labels.tolist() == [0, 0.5, 1]
    assert split.owners.tolist() == [0, 1, 1, 1, 2]
    assert split.source.bucket_lengths == buckets
    batch = split.source.take(np.array([3, 4]), step=0)
    assert batch["label_ids"].tolist() == [0.5, 1]
    assert batch["input_ids"].shape == (2, 12)


@pytest.mark.parametrize("text_b", [None, "", " ", "\t\n\u200b\x00"])
def test_a_second_text_without_tokens_is_none(tmp_path, text_b):
  vocab = tmp_path / "vocab.txt"
  vocab.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n", encoding="utf-8")
  tokenizer = tokenization.FullTokenizer(str(vocab))
  for text_a, ids in (("a a a", [2, 4, 4, 4, 3]), ("", [2, 3])):
    for long_text in classifier_data.LONG_TEXT:
      sequences, _ = classifier_data.tokenize_examples(
        [InputExample(None, text_a, text_b)], tokenizer, 5, long_text
      )
      assert unpadded(sequences) == [(ids, [0] * len(ids))]


# A task of one's own


@pytest.fixture
def own_tables():
  """Takes out of the tables again what a test adds to them."""
  changed = (classifier_data.TASKS, tables.READERS)
  before = [dict(table) for table in changed]
  yield
  for table, rows in zip(changed, before, strict=True):
    table.clear()
    table.update(rows)


def read_mail(path):
  """A message a line: `label: text`."""
  with open(path, encoding="utf-8") as lines:
    for number, line in enumerate(lines, start=1):
      label, _, text = line.strip().partition(": ")
      yield number, {"kind": label, "body": text}


@pytest.mark.usefixtures("own_tables")
def test_a_new_task_with_a_new_reader(tmp_path):
  layout = Layout("body", label="kind", file_format="My_Mail")
  files = {
    split: (classifier_data.DataFile(f"{split}.mail", layout),)
    for split in ("train", "dev")
  }
  task = classifier_data.Task("My_Mail", files, labels=("ham", "spam"))
  classifier_data.register(task, read_mail)
  config = run_classifier.ClassifierConfig(task_name="my_mail")
  assert classifier_data.make_task(config) is task
  assert classifier_data.find_task("My_Mail") is task
  (tmp_path / "train.mail").write_text("spam: Buy!\nham: Hello.\n")
  assert read_split(task, "train", tmp_path) == [
    InputExample("train-0", "Buy!", None, "spam", "0"),
    InputExample("train-1", "Hello.", None, "ham", "1"),
  ]
  (tmp_path / "dev.mail").write_text("ham: Hello.\neggs: Hm.\n")
  with pytest.raises(
    ValueError, match="dev.mail, line 2: unknown label 'eggs'"
  ):
    read_split(task, "dev", tmp_path)


@pytest.mark.usefixtures("own_tables")
def test_a_new_task_with_a_reader_that_is_there(tmp_path):
  layout = Layout("q", "p", label="y", file_format="csv")
  files = {"train": (classifier_data.DataFile("all.csv", layout),)}
  classifier_data.register(classifier_data.Task("pairs", files))
  (tmp_path / "all.csv").write_text("p,q,y\nb,a,1\n")
  assert read_split(classifier_data.find_task("pairs"), "train", tmp_path) == [
    InputExample("train-0", "a", "b", "1", "0")
  ]


def test_the_tables_are_as_before():
  assert "My_Mail" not in tables.READERS
  assert not {"My_Mail", "pairs"} & set(classifier_data.TASKS)


# Upstream's names


class NewsProcessor(run_classifier.DataProcessor):
  """As tutorials extend upstream's script."""

  def get_train_examples(self, data_dir):
    lines = self._read_tsv(data_dir / "news.tsv")
    return [
      run_classifier.InputExample(
        guid=f"train-{i}", text_a=line[1], text_b=None, label=line[0]
      )
      for i, line in enumerate(lines)
    ]

  def get_labels(self):
    return ["sport", "trade"]


def test_a_processor_of_a_tutorial(tmp_path):
  (tmp_path / "news.tsv").write_text('trade\t"Up 3 %.\nsport\tGoal!\n')
  vocab = tmp_path / "vocab.txt"
  vocab.write_text('[PAD]\n[UNK]\n[CLS]\n[SEP]\nup\n3\n%\n.\n"\n!\ngoal\n')
  processor = NewsProcessor()
  examples = processor.get_train_examples(tmp_path)
  features = run_classifier.convert_examples_to_features(
    [*examples, run_classifier.PaddingInputExample()],
    processor.get_labels(),
    6,
    tokenization.FullTokenizer(str(vocab)),
  )
  assert features == [
    run_classifier.InputFeatures(
      [2, 8, 4, 5, 6, 3], [1, 1, 1, 1, 1, 1], [0] * 6, 1
    ),
    run_classifier.InputFeatures(
      [2, 10, 9, 3, 0, 0], [1, 1, 1, 1, 0, 0], [0] * 6, 0
    ),
    run_classifier.InputFeatures([0] * 6, [0] * 6, [0] * 6, 0, False),
  ]
  for method in ("get_dev_examples", "get_test_examples"):
    with pytest.raises(NotImplementedError):
      getattr(processor, method)(tmp_path)


def test_read_tsv(tmp_path):
  path = tmp_path / "a.tsv"
  path.write_bytes(b'\xef\xbb\xbfx\t"a\r\ny\t"b"\r\n')
  read_tsv = run_classifier.DataProcessor._read_tsv
  assert read_tsv(path) == [["x", '"a'], ["y", '"b"']]
  path.write_text('x\t"a\tb"\ny\tc\n')
  assert read_tsv(path, quotechar='"') == [["x", "a\tb"], ["y", "c"]]


@pytest.mark.parametrize("name", ["cola", "mnli", "mrpc", "xnli"])
def test_processors_of_the_original(tmp_path, name):
  processor = getattr(run_classifier, f"{name.capitalize()}Processor")()
  assert isinstance(processor, run_classifier.DataProcessor)
  labels = classifier_data.TASKS[name].labels
  assert processor.get_labels() == list(labels)
  for key in FILES:
    if key[0] == name and "_" not in key[1]:
      expected = write_file(tmp_path, key)
      method = getattr(processor, f"get_{key[1]}_examples")
      assert method(str(tmp_path)) == expected


def test_processors_may_be_extended(tmp_path):
  class FewColaProcessor(run_classifier.ColaProcessor):
    def get_train_examples(self, data_dir):
      return super().get_train_examples(data_dir)[:1]

  expected = write_file(tmp_path, ("cola", "train", "train.tsv"))
  examples = FewColaProcessor().get_train_examples(str(tmp_path))
  assert examples == expected[:1]


def test_the_language_of_the_xnli_processor(tmp_path):
  write_file(tmp_path, ("xnli", "dev", "xnli.dev.tsv"))
  processor = run_classifier.XnliProcessor()
  assert processor.language == "zh"
  processor.language = "de"
  (example,) = processor.get_dev_examples(str(tmp_path))
  assert example.text_a == "Ja."
