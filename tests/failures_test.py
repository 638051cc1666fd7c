"""What is read, and what can be wrong with it: every pair, with its message.

`READERS` has a row for each kind of file (and one for a variable of the
environment), with a cell for each of `FAILURES`: what is said then, as a
pattern, or why there is no such failure.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
import tempfile

import numpy as np
import pytest

import modeling
import run_pretraining
import tokenization
from bert_keras3.console import start
from bert_keras3.data import features as input_pipeline
from bert_keras3.data import files as files_module
from bert_keras3.data import pretraining_instances
from bert_keras3.data import record_writer
from bert_keras3.data import records
from bert_keras3.data import tables
from bert_keras3.serving import predictor
from bert_keras3.tasks import classifier_data
from bert_keras3.tasks import pretraining
from bert_keras3.tasks import squad_data
from bert_keras3.tasks import squad_scores
from bert_keras3.training import configs
from bert_keras3.training import devices
from bert_keras3.training import output_directory
from bert_keras3.weights import checkpoints
from bert_keras3.weights import companions
from bert_keras3.weights import file_names

FAILURES = (
  "missing",
  "directory",
  "empty",
  "truncated",
  "flipped",
  "not_utf8",
  "wrong_structure",
  "of_another",
  "unreadable",
  "remote",
)
DOCS = pathlib.Path(__file__).parent.parent / "docs"


@dataclasses.dataclass(frozen=True)
class Senseless:
  """A pair that there is no failure for."""

  reason: str


@dataclasses.dataclass(frozen=True)
class Told:
  """What is printed, as a pattern, where work goes on without the file."""

  pattern: str


@dataclasses.dataclass(frozen=True)
class Reader:
  """One kind of file.

  Attributes:
    make: function from a directory to the path of a good file in it.
    read: function from that path that reads it.
    cells: by failure, a pattern of the error's text, Told or Senseless.
    damage: by failure, bytes that the file holds then, or a function from its
      path; only where it is not that of DAMAGE.
  """

  make: object
  read: object
  cells: dict
  damage: dict = dataclasses.field(default_factory=dict)


# Damage -----------------------------------------------------------------------


def _to_directory(path):
  path.unlink()
  path.mkdir()


def _cut(path):
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])


def _flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 0xFF
  path.write_bytes(content)


def _spoil_text(path):
  """Puts a byte that UTF-8 does not have behind the first one."""
  content = path.read_bytes()
  path.write_bytes(content[:1] + b"\xff" + content[1:])


DAMAGE = {
  "missing": lambda path: path.unlink(),
  "directory": _to_directory,
  "empty": lambda path: path.write_bytes(b""),
  "truncated": _cut,
  "flipped": _flip,
  "not_utf8": _spoil_text,
  "unreadable": lambda path: path.chmod(0),
}


@contextlib.contextmanager
def without_privileges():
  """Lets permissions count for root too, by being nobody for a while."""
  if os.geteuid():
    yield
    return
  try:
    os.seteuid(65534)
  except OSError:
    pytest.skip("root reads everything here, and cannot be nobody")
  try:
    yield
  finally:
    os.seteuid(0)


@pytest.fixture
def folder():
  """A directory that nobody can look into, unlike pytest's own."""
  with tempfile.TemporaryDirectory() as name:
    os.chmod(name, 0o777)
    yield pathlib.Path(name)


# Good files -------------------------------------------------------------------

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##b"]
CONFIG = {
  "vocab_size": len(VOCAB),
  "hidden_size": 4,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 4,
  "max_position_embeddings": 8,
  "type_vocab_size": 2,
}
QUESTION = {
  "id": "q1",
  "question": "a?",
  "answers": [{"text": "b", "answer_start": 2}],
}
SQUAD = {"data": [{"paragraphs": [{"context": "a b", "qas": [QUESTION]}]}]}
DESCRIPTION = {
  "format": 1,
  "kind": "classifier",
  "labels": ["a", "b"],
  "problem_type": "single_label",
  "inputs": {"serving_default": ["text"]},
}


def _writes(name, content):
  """A `make` that writes one file."""
  if not isinstance(content, (str, bytes)):
    content = json.dumps(content)
  if isinstance(content, str):
    content = content.encode()

  def make(folder):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path

  return make


def _bert_config(**changes):
  return modeling.BertConfig.from_dict({**CONFIG, **changes})


@functools.cache
def _model():
  return modeling.BertModel(_bert_config())


@functools.cache
def _other_model():
  return modeling.BertModel(_bert_config(hidden_size=6))


def _load(path):
  checkpoints.load_weights(modeling.named_variables(_model()), str(path))


def _make_tf1(suffix, model=_model):
  def make(folder):
    prefix = folder / "bert_model.ckpt"
    checkpoints.save(str(prefix), modeling.named_variables(model()))
    return pathlib.Path(f"{prefix}{suffix}")

  return make


def _make_other_tf1(path):
  _make_tf1("", _other_model)(path.parent)


def _make_state(folder):
  _make_tf1("")(folder)
  for file in folder.iterdir():
    file.rename(folder / file.name.replace("bert_model.ckpt", "model.ckpt-1"))
  return _writes("checkpoint", 'model_checkpoint_path: "model.ckpt-1"\n')(
    folder
  )


def _make_pickle(folder):
  for file in folder.iterdir():
    file.unlink()
  (folder / "pytorch_model.bin").touch()


HEADS = pathlib.Path(__file__).parent / "testdata" / "parity" / "heads"


def _make_safetensors(folder):
  for name in ("config.json", "model.safetensors"):
    shutil.copyfile(HEADS / "BertModel" / name, folder / name)
  return folder / "model.safetensors"


def _load_safetensors(path):
  model = _safetensors_model()
  checkpoints.load_weights(modeling.named_variables(model), str(path))


@functools.cache
def _safetensors_model():
  config = str(HEADS / "BertModel" / "config.json")
  return modeling.BertModel(modeling.BertConfig.from_json_file(config))


def _make_index(folder):
  path = folder / "model.safetensors.index.json"
  part = _make_safetensors(folder).rename(folder / "part.safetensors")
  path.write_text(json.dumps({"weight_map": {"x": part.name}}))
  return path


def _make_keras(folder):
  _model().save(folder / "model.keras")
  return folder / "model.keras"


def _make_other_keras(path):
  _other_model().save(path)


def _make_h5(folder):
  _model().save_weights(folder / "model.weights.h5")
  _writes("bert_config.json", CONFIG)(folder)
  return folder / "model.weights.h5"


def _make_other_h5(path):
  _other_model().save_weights(path)


def _write_records(path, length=8, features=None):
  specs = input_pipeline.pretraining_features(length, 2)
  if features:
    specs = (input_pipeline.FeatureSpec(features, (1,)),)
  values = {spec.name: np.ones([4, spec.length], int) for spec in specs}
  with record_writer.RecordWriter(str(path)) as writer:
    for record in input_pipeline.serialize_examples(values, specs):
      writer.write(record)


def _make_records(folder):
  _write_records(folder / "a.tfrecord")
  return folder / "a.tfrecord"


def _records_config(path):
  return run_pretraining.PretrainingConfig(
    bert_config_file="bert_config.json",
    input_file=str(path),
    output_dir=str(path.parent / "out"),
    init_checkpoint=None,
    eval_input_file=None,
    max_seq_length=8,
    max_predictions_per_seq=2,
    do_train=True,
    do_eval=False,
    eval_batch_size=1,
    max_eval_steps=1,
    overwrite_output_dir=False,
    dry_run=False,
  )


def _flip_record(path):
  """Flips a bit in the middle of the third record of four."""
  content = bytearray(path.read_bytes())
  content[len(content) * 5 // 8] ^= 1
  path.write_bytes(content)


def _read_records(path, skip_bad_records=False):
  config = _records_config(path)
  config = dataclasses.replace(config, skip_bad_records=skip_bad_records)
  files = files_module.find_files("input_file", config.input_file)
  source = pretraining.open_records(config, _bert_config(), files)
  print(pretraining.describe_bad_records(source))
  source.take(np.arange(len(source)), step=0)


def _make_record_index(folder):
  source = records.RecordSource(
    [str(_make_records(folder))], input_pipeline.pretraining_features(8, 2)
  )
  (folder / "out").mkdir()
  records.save_index(str(folder / "out" / "record_index.npz"), source)
  return folder / "out" / "record_index.npz"


def _read_with_index(path):
  _read_records(path.parent.parent / "a.tfrecord")


def _tokenizer(folder):
  path = _writes("good_vocab.txt", "\n".join(VOCAB))(folder)
  return tokenization.FullTokenizer(path)


def _read_text(path):
  files = files_module.find_files("input_file", str(path))
  documents = pretraining_instances.read_documents(files, _TOKENIZER)
  assert len(documents.token_ids)


with tempfile.TemporaryDirectory() as _name:
  _TOKENIZER = _tokenizer(pathlib.Path(_name))


def _reads_table(file_format):
  layout = tables.Layout("text", label="label", file_format=file_format)

  def read(path):
    tables.read_examples(str(path), layout, "train", labels=("0", "1"))

  return read


def _read_labels(path):
  task = classifier_data.own_task("csv", tables.Layout("text"))
  found = companions.find_labels([str(path.parent)])
  classifier_data.with_saved_labels(task, found)


def _score(path):
  questions = path.parent / "dev.json"
  texts = squad_scores.read_by_question(str(path), str)
  questions.write_text(json.dumps(SQUAD))
  examples = squad_data.read_squad_examples(str(questions), False)
  squad_scores.score(examples, texts)


def _read_null_odds(path):
  odds = squad_scores.read_by_question(str(path), float)
  questions = path.parent / "dev.json"
  questions.write_text(json.dumps(SQUAD))
  examples = squad_data.read_squad_examples(str(questions), False)
  squad_scores.score(examples, {"q1": "b"}, odds, is_version_2=True)


def _read_squad(path):
  squad_data.read_squad_examples(str(path), is_training=True)


def _read_description(path):
  predictor.read_description(str(path.parent.parent))


def _run(folder, settings):
  return output_directory.OutputDirectory(str(folder), settings, [])


def _make_manifest(folder, seed=1):
  _run(folder / "out", {"seed": seed}).claim()
  return folder / "out" / file_names.RUN_MANIFEST


def _read_manifest(path):
  _run(path.parent, {"seed": 1}).open()


def _make_windows_cache(folder):
  questions = _writes("train.json", SQUAD)(folder)
  path = folder / "train_windows.npz"
  squad_data.save_windows(str(path), _windows(questions), "key")
  return path


def _windows(questions):
  examples = squad_data.read_squad_examples(str(questions), True)
  return squad_data.make_windows(examples, _TOKENIZER, 8, 3, 4, True)


def _read_windows(path):
  windows = squad_data.cached_windows(
    output_directory.ReadOnlyDirectory(str(path.parent), {}, []),
    path.name,
    "key",
    lambda: _windows(path.parent / "train.json"),
  )
  assert len(windows) == 1


def _read_cluster(path):
  """A variable, as if it were a file: what the test writes is set."""
  before = os.environ.pop("TF_CONFIG", None)
  try:
    if path.exists():
      os.environ["TF_CONFIG"] = path.read_text()
    config = configs.DeviceConfig(distribution_strategy="multi_worker")
    devices.make_strategy(config)
  finally:
    os.environ.pop("TF_CONFIG", None)
    if before is not None:
      os.environ["TF_CONFIG"] = before


def _read_vocab(path):
  companions.open_tokenizer(str(path), True, _bert_config(vocab_size=300))


# The table --------------------------------------------------------------------
_NO_CHECKPOINT = "no checkpoint at .*expected a prefix such as"
_DAMAGED_TF1 = "bert_model.ckpt is damaged or no checkpoint .*copy it again"
_TOO_WIDE = r"has shape \[8, 6\].*the BERT config or the vocabulary is that"
_NOT_SAFE = "model.safetensors is no complete safetensors file.*download it"
_NO_INDEX = "index.json is no index of safetensors.*download it again"
_NOT_KERAS = "is no file that Keras saved of a model of modeling.py"
_NO_FILE = "no such file; check the path"
_IS_DIRECTORY = "no such file; name a file in that directory"
_UNREADABLE = "cannot be read .*check its permissions"
_NOT_UTF8 = r"line \d+: not UTF-8 .*convert the file"
_BAD_JSON = r"line 1.*: not valid JSON .*mend the file, or get it again"
_BAD_CONFIG = "bert_config.json is not valid JSON.*mend it or get it again"
_BAD_EXPORT = "model.json is damaged .*export the model again"
_BAD_MANIFEST = "run_manifest.json is damaged .*--overwrite_output_dir"
_MADE_AGAIN = Told("npz is damaged and is made again")
_SET_CLUSTER = "needs the environment variable TF_CONFIG, such as"

_READ_REMOTELY = Senseless("remote files are read as local ones are")
_BINARY = Senseless("holds no text; see flipped")
_ONE_OF_TWO = Senseless("the file for other uses has the same name and form")
_STILL_TEXT = Senseless("what is left of a text is a text")
_MADE = Senseless("it is made where it is not there")
_OTHER_NUMBERS = Senseless("the format has no checksum, and any number is one")


def _json_file(name, what):
  """Cells of the JSON files that squad_scores.read_by_question reads."""
  broken = f"{name} is not JSON .*it should hold one object, .* to {what}"
  return {
    "missing": _NO_FILE,
    "directory": _IS_DIRECTORY,
    "empty": broken,
    "truncated": broken,
    "flipped": broken,
    "not_utf8": broken,
    "wrong_structure": f"{name} has .* for question 'q1'; it should hold",
    "unreadable": _UNREADABLE,
    "remote": _READ_REMOTELY,
  }


def _text_file(**others):
  """Cells that files of text have in common, and others."""
  return {
    "missing": _NO_FILE,
    "directory": _IS_DIRECTORY,
    "flipped": _NOT_UTF8,
    "not_utf8": _NOT_UTF8,
    "unreadable": _UNREADABLE,
    "remote": _READ_REMOTELY,
    **others,
  }


def _table(name, good, short, another):
  """A reader of rows; `short` lacks a field, `another` has other columns."""
  file_format = name.removeprefix("GLUE ")
  file_format = "glue" if "GLUE" in name else file_format
  path = f"train.{file_format}"
  lost = r"line \d: .*mend the row, or pass --skip_bad_rows"
  return Reader(
    _writes(path, good),
    _reads_table(file_format),
    _text_file(
      empty=f"{path} holds no example; check the file",
      truncated=lost,
      wrong_structure=lost,
      of_another="no column 'text'; (its columns are|it has the keys)",
    ),
    {
      "truncated": good.rstrip(b"\n}")[:-2],
      "wrong_structure": short,
      "of_another": another,
    },
  )


READERS = {
  "vocabulary": Reader(
    _writes("vocab.txt", "\n".join([*VOCAB, *map(str, range(292))]) + "\n"),
    _read_vocab,
    _text_file(
      empty="vocab.txt: the vocabulary is empty; it should hold",
      truncated="vocab.txt has .* tokens, but .*do not belong together",
      wrong_structure="vocab.txt, line 1: its lines end in CR .*convert",
      of_another="vocab.txt has 8 tokens, but the model's vocab_size is 300",
    ),
    {
      "wrong_structure": b"a\rb\rc",
      "of_another": "\n".join(VOCAB).encode(),
    },
  ),
  "BERT config": Reader(
    _writes("bert_config.json", CONFIG),
    lambda path: modeling.BertConfig.from_json_file(str(path)),
    {
      "missing": "no BERT config at .*bert_config.json; check the path",
      "directory": "bert_config.json cannot be read .*name a file that can",
      "empty": _BAD_CONFIG,
      "truncated": _BAD_CONFIG,
      "flipped": _BAD_CONFIG,
      "not_utf8": _BAD_CONFIG,
      "wrong_structure": "bert_config.json: hidden_size must be.*'4'; mend",
      "of_another": "network that is not BERT: its model_type.*choose a model",
      "unreadable": "bert_config.json cannot be read .*name a file that can",
      "remote": _READ_REMOTELY,
    },
    {
      "wrong_structure": json.dumps({**CONFIG, "hidden_size": "4"}).encode(),
      "of_another": json.dumps({**CONFIG, "model_type": "gpt2"}).encode(),
    },
  ),
  **{
    f"checkpoint, {suffix[1:6].rstrip('-')}": Reader(
      _make_tf1(suffix),
      lambda path: _load(str(path).split(".ckpt")[0] + ".ckpt"),
      {
        "missing": _NO_CHECKPOINT,
        "directory": _DAMAGED_TF1,
        "empty": _DAMAGED_TF1,
        "truncated": _DAMAGED_TF1,
        "flipped": _DAMAGED_TF1,
        "not_utf8": _BINARY,
        "wrong_structure": _DAMAGED_TF1,
        "of_another": f"bert_model.ckpt: .*{_TOO_WIDE}",
        "unreadable": _DAMAGED_TF1,
        "remote": _READ_REMOTELY,
      },
      {"wrong_structure": b"text" * 40, "of_another": _make_other_tf1},
    )
    for suffix in (".index", ".data-00000-of-00001")
  },
  "checkpoint state": Reader(
    _make_state,
    lambda path: _load(path.parent),
    {
      **dict.fromkeys(FAILURES, f"{_NO_CHECKPOINT}.* `checkpoint` file"),
      "flipped": Senseless("another byte names another checkpoint"),
      "remote": _READ_REMOTELY,
    },
    {
      "wrong_structure": b"all: 5",
      "of_another": b'model_checkpoint_path: "gone"\n',
    },
  ),
  "init_checkpoint, a directory": Reader(
    lambda folder: _make_tf1("")(folder).parent,
    lambda path: _load(path),
    {
      "missing": _NO_CHECKPOINT,
      "directory": Senseless("it is one"),
      "empty": _NO_CHECKPOINT,
      "truncated": Senseless("see its files"),
      "flipped": Senseless("see its files"),
      "not_utf8": Senseless("see its files"),
      "wrong_structure": "bin is not read: it is a pickle.*convert it with",
      "of_another": _TOO_WIDE,
      "unreadable": "cannot be read .*check its permissions",
      "remote": _READ_REMOTELY,
    },
    {
      "missing": shutil.rmtree,
      "empty": lambda path: [x.unlink() for x in path.iterdir()],
      "wrong_structure": _make_pickle,
      "of_another": lambda path: _make_other_tf1(path / "x"),
    },
  ),
  "safetensors": Reader(
    _make_safetensors,
    _load_safetensors,
    {
      "missing": _NO_CHECKPOINT,
      "directory": _NO_CHECKPOINT,
      "empty": _NOT_SAFE,
      "truncated": _NOT_SAFE,
      "flipped": _OTHER_NUMBERS,
      "not_utf8": _NOT_SAFE,
      "wrong_structure": _NOT_SAFE,
      "of_another": "it lacks .* encoder variables.*check that the BERT config",
      "unreadable": _NOT_SAFE,
      "remote": "not a local file, which safetensors must be; copy it",
    },
    {
      "wrong_structure": b"text" * 40,
      "of_another": b"\2\0\0\0\0\0\0\0{}",
    },
  ),
  "safetensors' index": Reader(
    _make_index,
    _load_safetensors,
    {
      "missing": _NO_CHECKPOINT,
      "directory": _NO_CHECKPOINT,
      "empty": _NO_INDEX,
      "truncated": _NO_INDEX,
      "flipped": _NO_INDEX,
      "not_utf8": _NO_INDEX,
      "wrong_structure": _NO_INDEX,
      "of_another": "gone.safetensors is missing, .*index.json names; download",
      "unreadable": "index.json cannot be read .*name a file that can",
      "remote": "not a local file, which safetensors must be; copy it",
    },
    {
      "wrong_structure": b"[]",
      "of_another": b'{"weight_map": {"x": "gone.safetensors"}}',
    },
  ),
  ".keras": Reader(
    _make_keras,
    _load,
    {
      **dict.fromkeys(FAILURES, f"model.keras {_NOT_KERAS}"),
      "missing": _NO_CHECKPOINT,
      "not_utf8": _BINARY,
      "of_another": _TOO_WIDE,
      "remote": _READ_REMOTELY,
    },
    {"wrong_structure": b"text" * 40, "of_another": _make_other_keras},
  ),
  ".weights.h5": Reader(
    _make_h5,
    _load,
    {
      **dict.fromkeys(FAILURES, f"model.weights.h5 {_NOT_KERAS}"),
      "missing": _NO_CHECKPOINT,
      "flipped": _OTHER_NUMBERS,
      "not_utf8": _BINARY,
      "remote": Senseless("a .weights.h5 is for the machine that wrote it"),
    },
    {"wrong_structure": b"text" * 40, "of_another": _make_other_h5},
  ),
  "records": Reader(
    _make_records,
    _read_records,
    {
      "missing": "--input_file: no file matches .*a.tfrecord'; check the path",
      "directory": "a.tfrecord is a directory; name record files",
      "empty": "no record in .*a.tfrecord; expected what create_pretraining",
      "truncated": r"a.tfrecord is truncated .*record 3 \(.*--skip_bad_records",
      "flipped": r"a.tfrecord: record 2 \(.*is corrupt .*--skip_bad_records",
      "not_utf8": _BINARY,
      "wrong_structure": r"record 0 .*with --max_seq_length=6, not 8; pass",
      "of_another": "record 0 .*no feature 'input_ids'.*another task .*create",
      "unreadable": "a.tfrecord cannot be read .*check the path and its perm",
      "remote": _READ_REMOTELY,
    },
    {
      "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
      "flipped": _flip_record,
      "wrong_structure": lambda path: _write_records(path, length=6),
      "of_another": lambda path: _write_records(path, features="label_ids"),
    },
  ),
  "records, left out if bad": Reader(
    _make_records,
    lambda path: _read_records(path, skip_bad_records=True),
    {
      "missing": "--input_file: no file matches .*a.tfrecord'; check the path",
      "directory": "a.tfrecord is a directory; name record files",
      "empty": "no record in .*a.tfrecord; expected what create_pretraining",
      "truncated": Told(r"1 of 4 records are bad .*\n.*record 3 \(.*lost"),
      "flipped": Told(r"1 of 4 records are bad .*\n.*record 2 \(.*corrupt"),
      "not_utf8": _BINARY,
      "wrong_structure": "none of the 4 records .* 6 int64.*not 8; check the",
      "of_another": "none of the 4 records .*another task.*check the flags",
      "unreadable": "a.tfrecord cannot be read .*check the path and its perm",
      "remote": _READ_REMOTELY,
    },
    {
      "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
      "flipped": _flip_record,
      "wrong_structure": lambda path: _write_records(path, length=6),
      "of_another": lambda path: _write_records(path, features="label_ids"),
    },
  ),
  "record_index.npz": Reader(
    _make_record_index,
    _read_with_index,
    {
      **dict.fromkeys(FAILURES, _MADE_AGAIN),
      "missing": _MADE,
      "not_utf8": _BINARY,
      "of_another": Senseless("it is looked up by path, size and time"),
      "remote": _READ_REMOTELY,
    },
    {"wrong_structure": b"text" * 40},
  ),
  "pretraining text": Reader(
    _writes("text.txt", "a b\n\nb a\n"),
    _read_text,
    _text_file(
      missing="--input_file: no file matches .*text.txt'; check the path",
      empty="no text in .*text.txt; there should be a sentence on each line",
      truncated=_STILL_TEXT,
      wrong_structure="text.txt, line 1: its lines end in CR alone.*convert",
      of_another=Senseless("any text will do"),
    ),
    {"wrong_structure": b"a b\r\rb a\r"},
  ),
  "csv": _table(
    "csv", b'text,label\n"a b",1\n"b",0\n', b"text,label\na\n", b"x,y\na,1\n"
  ),
  "tsv": _table(
    "tsv",
    b"text\tlabel\na b\t1\nb\t0\n",
    b"text\tlabel\na\n",
    b"x\ty\na\t1\n",
  ),
  "GLUE tsv": _table(
    "GLUE tsv",
    b"text\tlabel\na b\t1\nb\t0\n",
    b"text\tlabel\na\n",
    b"x\ty\na\t1\n",
  ),
  "jsonl": _table(
    "jsonl",
    b'{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n',
    b'["a", 1]\n',
    b'{"x": "a", "label": 1}\n',
  ),
  "labels.txt": Reader(
    _writes("labels.txt", "no\nyes\n"),
    _read_labels,
    _text_file(
      missing="there is no model to use.* labels.txt.*train with --do_train",
      empty="labels.txt should hold a label on each line.*copy it again",
      truncated=_STILL_TEXT,
      wrong_structure="labels.txt should hold .* each once; copy it again",
      of_another=Senseless("other labels are other labels"),
    ),
    {"wrong_structure": b"no\nno\n"},
  ),
  "SQuAD": Reader(
    _writes("train.json", SQUAD),
    _read_squad,
    {
      "missing": _NO_FILE,
      "directory": _IS_DIRECTORY,
      "empty": _BAD_JSON,
      "truncated": _BAD_JSON,
      "flipped": _BAD_JSON,
      "not_utf8": _BAD_JSON,
      "wrong_structure": "train.json: 'data' should be a list.*mend the file",
      "of_another": "train.json: the key 'data' is missing.*mend the file",
      "unreadable": _UNREADABLE,
      "remote": _READ_REMOTELY,
    },
    {"wrong_structure": b'{"data": {}}', "of_another": b'{"q1": "b"}'},
  ),
  "predictions.json": Reader(
    _writes("predictions.json", {"q1": "b"}),
    _score,
    {
      **_json_file("predictions.json", "texts"),
      "of_another": Told("1 questions have no prediction and count as wrong"),
    },
    {"wrong_structure": b'{"q1": 5}', "of_another": b'{"q9": "b"}'},
  ),
  "null_odds.json": Reader(
    _writes("null_odds.json", {"q1": 0.5}),
    _read_null_odds,
    {
      **_json_file("null_odds.json", "numbers"),
      "of_another": "'q1' has a prediction but no null odds; pass the null_",
    },
    {"wrong_structure": b'{"q1": "b"}', "of_another": b'{"q9": 1}'},
  ),
  "windows' cache": Reader(
    _make_windows_cache,
    _read_windows,
    {
      **dict.fromkeys(FAILURES, _MADE_AGAIN),
      "missing": _MADE,
      "directory": _MADE,
      "not_utf8": _BINARY,
      "of_another": Senseless("it has a key; with another it is made again"),
      "remote": _READ_REMOTELY,
    },
    {"wrong_structure": b"text" * 40},
  ),
  "model.json of an export": Reader(
    _writes("assets.extra/model.json", DESCRIPTION),
    _read_description,
    {
      "missing": "is no export: it has no assets.extra/model.json; name a",
      "directory": "model.json cannot be read .*export the model again",
      "empty": _BAD_EXPORT,
      "truncated": _BAD_EXPORT,
      "flipped": _BAD_EXPORT,
      "not_utf8": _BAD_EXPORT,
      "wrong_structure": "model.json is damaged .its kind is 'poem'.*export",
      "of_another": "was exported by a newer version; install that one here",
      "unreadable": "model.json cannot be read .*export the model again",
      "remote": _READ_REMOTELY,
    },
    {
      "wrong_structure": json.dumps({**DESCRIPTION, "kind": "poem"}).encode(),
      "of_another": b'{"format": 2}',
    },
  ),
  "run_manifest.json": Reader(
    _make_manifest,
    _read_manifest,
    {
      **dict.fromkeys(FAILURES, _BAD_MANIFEST),
      "missing": Senseless("a directory without one holds no run"),
      "of_another": r"--seed=2 \(now 1\); choose another --output_dir",
      "remote": _READ_REMOTELY,
    },
    {
      "wrong_structure": b'{"settings": []}',
      "of_another": lambda path: _make_manifest(path.parent.parent, seed=2),
    },
  ),
  "TF_CONFIG": Reader(
    _writes("TF_CONFIG", '{"cluster": {"worker": ["host:1"]}}'),
    _read_cluster,
    {
      **dict.fromkeys(FAILURES, Senseless("a variable is no file")),
      "missing": _SET_CLUSTER,
      "empty": _SET_CLUSTER,
      "truncated": _SET_CLUSTER,
      "wrong_structure": _SET_CLUSTER,
    },
    {"wrong_structure": b"[]"},
  ),
}


def count_pairs():
  """How many pairs there are, make sense, and are tested here.

  Returns:
    (readers, failures, pairs that make sense, of these with a message).
  """
  cells = [
    cell for reader in READERS.values() for cell in reader.cells.values()
  ]
  sensible = [cell for cell in cells if not isinstance(cell, Senseless)]
  covered = [cell for cell in sensible if isinstance(cell, (str, Told))]
  return len(READERS), len(FAILURES), len(sensible), len(covered)


PAIRS = [
  (name, failure)
  for name, reader in READERS.items()
  for failure, cell in reader.cells.items()
  if not isinstance(cell, Senseless)
]


# Tests ------------------------------------------------------------------------


@pytest.mark.parametrize("name", READERS)
def test_a_good_file_is_read(folder, name, capsys):
  """Otherwise its failures would prove nothing."""
  if name == "TF_CONFIG":
    pytest.skip("it would start a server; run_pretraining_test.py does")
  reader = READERS[name]
  reader.read(reader.make(folder))
  assert "damaged" not in capsys.readouterr().out


@pytest.mark.parametrize(("name", "failure"), PAIRS)
def test_a_failure_has_its_message(folder, name, failure, capsys):
  reader = READERS[name]
  path = reader.make(folder)
  for directory in (path.parent, path.parent.parent):
    if folder in (directory, *directory.parents):
      directory.chmod(0o777)
  how = reader.damage.get(failure, DAMAGE.get(failure))
  if isinstance(how, bytes):
    path.write_bytes(how)
  elif how:
    how(path)
  cell = reader.cells[failure]
  what = f"file://{path}" if failure == "remote" else path
  is_locked = failure == "unreadable"
  lock = without_privileges() if is_locked else contextlib.nullcontext()
  if isinstance(cell, Told):
    with lock:
      reader.read(what)
    assert re.search(cell.pattern, "".join(capsys.readouterr()))
    return
  with pytest.raises((ValueError, OSError)) as caught, lock:
    reader.read(what)
  assert start.is_users_mistake(caught.value), caught.value
  assert re.search(cell, str(caught.value), re.DOTALL), caught.value


def test_every_pair_is_covered_or_has_a_reason():
  for name, reader in READERS.items():
    assert set(reader.cells) == set(FAILURES), name
    for failure, cell in reader.cells.items():
      assert isinstance(cell, (str, Told, Senseless)), (name, failure)
      if isinstance(cell, Senseless):
        assert cell.reason
  readers, failures, sensible, covered = count_pairs()
  assert readers * failures == sum(len(x.cells) for x in READERS.values())
  assert covered == sensible == len(PAIRS)


def test_the_docs_count_as_this_table_does():
  """As "2 readers and 3 classes of failure: 5 pairs make sense, 5 of ..."."""
  found = re.search(
    r"(\d+) readers and (\d+) classes of failure: (\d+) pairs make sense, "
    r"(\d+) of them have a test",
    " ".join((DOCS / "reliability.md").read_text(encoding="utf-8").split()),
  )
  assert found, "docs/reliability.md does not count them"
  assert tuple(map(int, found.groups())) == count_pairs()
