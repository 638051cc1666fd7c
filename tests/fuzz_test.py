"""Whatever a file holds, the answer is a result or a sentence of ours.

Sensible files are mutated, byte by byte or value by value, and read. What comes
may be a result, or an error that `flags.run` would show to the user; any
other exception is a defect. Equal runs try the same examples; Hypothesis takes
constants from the modules that are loaded, so with other code come others.
"""

import contextlib
import copy
import functools
import io
import json
import os
import pathlib
import shutil

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import modeling
import tokenization
from bert_keras3.console import start as start_module
from bert_keras3.data import features as input_pipeline
from bert_keras3.data import parsing
from bert_keras3.data import pretraining_instances
from bert_keras3.data import record_writer
from bert_keras3.data import records as records_module
from bert_keras3.data import tables
from bert_keras3.serving import predictor
from bert_keras3.tasks import squad_data
from bert_keras3.tasks import squad_decoding
from bert_keras3.tasks import squad_scores
from bert_keras3.training import output_directory
from bert_keras3.weights import checkpoints
from bert_keras3.weights import file_names
from bert_keras3.weights import hugging_face
from bert_keras3.weights import labels as labels_module

# Derandomised: what fails here fails everywhere, and tomorrow as well.
SETTINGS = hypothesis.settings(
  deadline=None,
  derandomize=True,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)
# FUZZ_FACTOR=20 looks longer, after a change to a reader.
FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))
often = hypothesis.settings(SETTINGS, max_examples=300 * FACTOR)
rarely = hypothesis.settings(SETTINGS, max_examples=80 * FACTOR)

VOCAB = [
  "[PAD]",
  "[UNK]",
  "[CLS]",
  "[SEP]",
  "[MASK]",
  "a",
  "b",
  "##b",
  "é",
  ".",
]
SPECS = input_pipeline.pretraining_features(8, 2, vocab_size=10)


@contextlib.contextmanager
def only_our_errors():
  """Lets pass what the user would see as one sentence."""
  try:
    yield
  except (ValueError, OSError) as error:
    if not start_module.is_users_mistake(error):
      raise
    assert str(error).strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """One directory for all: files are overwritten by the next example."""
  return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def tokenizer(folder):
  path = folder / "good_vocab.txt"
  path.write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
  return tokenization.FullTokenizer(path)


# What is fed in ---------------------------------------------------------------

# Surrogates, which no file can hold but JSON's escapes can, included.
ANY_TEXT = st.text(st.characters(), max_size=60)
ODD_TEXT = st.text(
  st.sampled_from(
    "aAbB .,[]MASK\0\t\n\r\x0b\x85\xa0é\u0301中각Σ\u200d\ufeff\ud800\U0001f600"
  ),
  max_size=60,
)


@st.composite
def mutated(draw, content):
  """`content`, some of its bytes flipped, cut out, put in or doubled."""
  data = bytearray(content)
  for _ in range(draw(st.integers(1, 4))):
    kind = draw(st.sampled_from(["flip", "cut", "insert", "duplicate", "end"]))
    start = draw(st.integers(0, len(data)))
    stop = min(start + draw(st.integers(1, 40)), len(data))
    if kind == "flip" and start < len(data):
      data[start] ^= draw(st.integers(1, 255))
    elif kind == "cut":
      del data[start:stop]
    elif kind == "insert":
      data[start:start] = draw(ODD_BYTES)
    elif kind == "duplicate":
      data[start:start] = data[start:stop]
    elif kind == "end":
      del data[start:]
  return bytes(data)


NESTED = b"[" * 100
ODD_BYTES = st.one_of(
  st.binary(max_size=12),
  st.sampled_from(
    [
      b"\0",
      b"\r",
      b"\n",
      b"\r\n",
      b'"',
      b"\t",
      b",",
      b"\xef\xbb\xbf",
      b"\xed\xa0\x80",
    ]
    + [b"null", b"1e999", b"NaN", b"-1", b"[[", b"{", b"9" * 5000, NESTED * 30]
  ),
)

ODD_VALUES = st.one_of(
  st.none(),
  st.booleans(),
  st.sampled_from(
    [0, -1, 2**31, 2**63, 10**400, 1e308, 0.5, "", "0", "\ud800"]
  ),
  st.sampled_from([float("nan"), float("inf"), -float("inf")]),
  st.sampled_from([[], {}, [[]], [None], [{}], {"": None}, ["a", 1], "a\0b"]),
  st.just(functools.reduce(lambda x, _: [x], range(200), [])),
  ANY_TEXT,
).map(copy.deepcopy)


def _places(value, path=()):
  """Paths to all values within a value of JSON."""
  yield path
  if isinstance(value, dict):
    for key in value:
      yield from _places(value[key], (*path, key))
  elif isinstance(value, list):
    for number, entry in enumerate(value):
      yield from _places(entry, (*path, number))


@st.composite
def mutated_json(draw, value):
  """`value` with some parts replaced, dropped, doubled or renamed."""
  value = copy.deepcopy(value)
  for _ in range(draw(st.integers(1, 3))):
    *path, last = draw(
      st.sampled_from([x for x in _places(value) if x] or [(0,)])
    )
    try:
      parent = functools.reduce(lambda x, key: x[key], path, value)
      kind = draw(st.sampled_from(["replace", "replace", "drop", "add"]))
      if kind == "replace":
        parent[last] = draw(ODD_VALUES)
      elif kind == "drop":
        del parent[last]
      elif isinstance(parent, list):
        parent.insert(last, draw(ODD_VALUES))
      else:
        parent[draw(ANY_TEXT)] = draw(ODD_VALUES)
    except (TypeError, IndexError, KeyError):
      pass  # Nothing is left there.
  return draw(st.sampled_from([value] * 9 + [draw(ODD_VALUES)]))


def json_files(value):
  """Bytes of JSON files: the value changed, or its text."""
  text = json.dumps(value).encode()
  return st.one_of(mutated_json(value).map(_dump), mutated(text))


def _dump(value):
  # Only a text can hold an integer that Python does not print.
  return json.dumps(value).encode()


# Text -------------------------------------------------------------------------


@often
@hypothesis.given(st.one_of(ANY_TEXT, ODD_TEXT, st.binary(max_size=60)))
@pytest.mark.parametrize("mode", ["split", "keep"])
def test_any_text_is_tokenised(tokenizer, folder, mode, text):
  tokenizer = _tokenizer(folder / "good_vocab.txt", mode)
  tokens = tokenizer.tokenize(text)
  assert tokenizer.encode(text) == tokenizer.convert_tokens_to_ids(tokens)


@functools.cache
def _tokenizer(path, mode):
  return tokenization.FullTokenizer(path, special_tokens_in_text=mode)


@often
@hypothesis.given(
  st.one_of(st.binary(max_size=60), mutated("\n".join(VOCAB).encode()))
)
def test_any_bytes_are_a_vocabulary_or_refused(folder, content):
  path = folder / "vocab.txt"
  path.write_bytes(content)
  with only_our_errors():
    tokenizer = tokenization.FullTokenizer(path)
    assert 1 <= len(tokenizer.vocab) <= content.count(b"\n") + 1
    tokenizer.tokenize("a b ab [MASK] é.")
    tokenizer.encode("a b ab [MASK] é.")


TEXT = "a b ab. B.\nA é b a b.\n\nb b b a.\n\na.\nb a é.\n".encode()


@often
@hypothesis.given(
  content=st.one_of(st.binary(max_size=80), mutated(TEXT), mutated(TEXT * 9)),
  whole_words=st.booleans(),
)
def test_any_text_makes_records_or_is_refused(
  tokenizer, folder, content, whole_words
):
  path = folder / "text.txt"
  path.write_bytes(content)
  config = pretraining_instances.DataConfig(
    max_seq_length=8,
    max_predictions_per_seq=2,
    dupe_factor=2,
    do_whole_word_mask=whole_words,
  )
  with only_our_errors():
    documents = pretraining_instances.read_documents([path], tokenizer)
    made = pretraining_instances.create_training_instances(
      documents, tokenizer, config
    )
    records = input_pipeline.serialize_examples(
      made.features(0, len(made)), SPECS
    )
    assert [parsing.find_problem(x, SPECS) for x in records[:3]] == (
      [None] * len(records[:3])
    )


# Tables -----------------------------------------------------------------------

TABLES = {
  "csv": b'text,label,id\n"one, two",1,x\nthree,0,"a ""b"""\nfour,1,z\n',
  "tsv": b"text\tlabel\tid\none\t1\tx\nthree\t0\ty\nfour\t1\tz\n",
  "glue": b"text\tlabel\tid\none\t1\tx\nthree\t0\ty\nfour\t1\tz\n",
  "jsonl": b'{"text": "one", "label": 1, "id": 7}\n{"text": "two", "label": '
  b'["a"], "id": null}\n{"text": "three", "label": "1", "id": "x"}\n',
  "toutiao": b"text_!_label_!_id\none_!_1_!_x\ntwo_!_0_!_y\n",
}
ROWS = [json.loads(line) for line in TABLES["jsonl"].splitlines()]


def read_table(path, file_format, problem_type, skip_bad_rows):
  layout = tables.Layout(
    "text", label="label", row_id="id", file_format=file_format
  )
  return tables.read_examples(
    str(path), layout, "train", problem_type, skip_bad_rows=skip_bad_rows
  )


PROBLEM_TYPES = st.sampled_from(["single_label", "multi_label", "regression"])


@often
@pytest.mark.parametrize("file_format", TABLES)
@hypothesis.given(st.data(), PROBLEM_TYPES, st.booleans())
def test_any_bytes_are_a_table_or_refused(
  folder, file_format, data, problem_type, skips
):
  path = folder / "table"
  path.write_bytes(data.draw(mutated(TABLES[file_format])))
  with only_our_errors():
    examples = read_table(path, file_format, problem_type, skips)
    assert all(isinstance(x.text_a, str) for x in examples)


@often
@hypothesis.given(st.lists(mutated_json(ROWS[1]), min_size=1), PROBLEM_TYPES)
def test_any_values_are_rows_or_refused(folder, rows, problem_type):
  path = folder / "rows.jsonl"
  path.write_text("\n".join(map(json.dumps, rows)))
  for skips in (False, True):
    with only_our_errors():
      read_table(path, "jsonl", problem_type, skips)


# A line, and nothing that ends it or that a quotation mark would join to it.
LINES = st.binary(max_size=40).map(
  lambda x: x.translate(None, b'\r\n"').decode("utf-8", "ignore").encode()
)


@often
@pytest.mark.parametrize("file_format", TABLES)
@hypothesis.given(line=LINES, place=st.integers(1, 3))
def test_a_bad_row_changes_none_of_its_neighbours(
  folder, file_format, line, place
):
  path = folder / "neighbours"
  path.write_bytes(TABLES[file_format])
  expected = _contents(read_table(path, file_format, "multi_label", True))
  lines = TABLES[file_format].splitlines()
  lines.insert(min(place, len(lines)), line)
  path.write_bytes(b"\n".join(lines))
  found = _contents(read_table(path, file_format, "multi_label", True))
  if len(found) > len(expected):
    del found[min(place, len(lines) - 1) - (file_format != "jsonl")]
  assert found == expected


def _contents(examples):
  return [(x.text_a, x.label) for x in examples]


# SQuAD ------------------------------------------------------------------------


def _question(number, start, impossible=False):
  return {
    "id": f"q{number}",
    "question": "a b?",
    "answers": [{"text": "b a", "answer_start": start}],
    "is_impossible": impossible,
  }


SQUAD = {
  "version": "v2.0",
  "data": [
    {
      "title": "a",
      "paragraphs": [
        {"context": "a b a b. é", "qas": [_question(1, 2), _question(2, 2)]},
        {"context": "b a", "qas": [_question(3, 0, impossible=True)]},
      ],
    }
  ],
}


@often
@hypothesis.given(json_files(SQUAD), st.booleans(), st.booleans())
def test_any_json_is_questions_or_refused(
  tokenizer, folder, content, is_training, is_version_2
):
  path = folder / "squad.json"
  path.write_bytes(content)
  with only_our_errors():
    examples = squad_data.read_squad_examples(
      str(path), is_training, is_version_2
    )
    windows = squad_data.make_windows(
      examples, tokenizer, 12, 3, 4, is_training
    )
    assert windows.num_examples == len(examples)


LOGITS = st.one_of(
  st.sampled_from([0.0, 1.0, -np.inf, 3e38, -3e38, 1e-40]),
  st.sampled_from([0.0, 1.0]),
  st.floats(width=32),
)


@often
@hypothesis.given(
  st.data(), st.booleans(), st.integers(1, 5), st.integers(1, 3)
)
def test_any_logits_are_decoded_or_refused(
  tokenizer, folder, data, is_version_2, n_best_size, max_answer_length
):
  path = folder / "questions.json"
  path.write_text(json.dumps(SQUAD))
  examples = squad_data.read_squad_examples(str(path), False)
  windows = squad_data.make_windows(examples, tokenizer, 12, 3, 4, False)
  count = len(windows) * 12
  kinds = st.one_of(
    st.lists(LOGITS, min_size=count, max_size=count),
    st.lists(st.sampled_from([0.0, 1.0]), min_size=count, max_size=count),
    st.lists(st.floats(-3e38, 3e38), min_size=count, max_size=count),
  )
  starts, ends = (
    np.array(data.draw(kinds), np.float32).reshape(-1, 12) for _ in range(2)
  )
  config = squad_decoding.DecodingConfig(
    n_best_size, max_answer_length, version_2_with_negative=is_version_2
  )
  with only_our_errors():
    found = squad_decoding.decode(
      examples, windows, starts, ends, tokenizer, config
    )
    assert list(found.predictions) == ["q1", "q2", "q3"]
    for entries in found.nbest.values():
      assert 1 <= len(entries) <= n_best_size + 1
      total = sum(entry["probability"] for entry in entries)
      assert total == pytest.approx(1)


@rarely
@hypothesis.given(json_files({"q1": "a", "q2": ""}), json_files({"q1": 0.5}))
def test_any_predictions_are_read_or_refused(folder, texts, odds):
  for content, kind in ((texts, str), (odds, float)):
    path = folder / "predictions.json"
    path.write_bytes(content)
    with only_our_errors():
      values = squad_scores.read_by_question(str(path), kind)
      assert isinstance(values, dict)


def test_predictions_that_are_nested_without_end_are_refused(folder):
  path = folder / "nested.json"
  path.write_bytes(NESTED * 30)
  with pytest.raises(ValueError, match="nested.json is not JSON"):
    squad_scores.read_by_question(str(path), str)


# Records ----------------------------------------------------------------------


@functools.cache
def records():
  features = {spec.name: np.ones([6, spec.length], int) for spec in SPECS}
  return input_pipeline.serialize_examples(features, SPECS)


@functools.cache
def record_file():
  buffer = io.BytesIO()
  for record in records():
    length = len(record).to_bytes(8, "little")
    for part in (length, record):
      buffer.write(part)
      crc = record_writer.masked_crc(part)
      buffer.write(crc.to_bytes(4, "little"))
  return buffer.getvalue()


@often
@hypothesis.given(st.data(), st.booleans())
def test_any_record_file_is_read_or_refused(folder, data, skips):
  path = folder / "mutated.tfrecord"
  path.write_bytes(data.draw(mutated(record_file())))
  with only_our_errors():
    source = records_module.RecordSource([str(path)], SPECS, None, skips)
    head = source.head(str(path), 3)
    source.check_head(str(path), head)
    for number in range(len(source)):
      batch = source.take([number], step=0)
      assert all((batch[spec.name] == 1).all() for spec in SPECS)
    if skips:
      assert source.bad_records <= 3 * 4


@often
@hypothesis.given(st.data())
def test_any_record_is_parsed_or_explained(data):
  some = [data.draw(mutated(records()[0])), records()[1]]
  with only_our_errors():
    parsing.parse_valid(some, SPECS)
  problem = parsing.find_problem(some[0], SPECS)
  assert problem is None or problem.split()[0] in ("has", "is")


# Models -----------------------------------------------------------------------

CONFIG = {
  "vocab_size": 12,
  "hidden_size": 4,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 4,
  "hidden_act": "gelu",
  "max_position_embeddings": 8,
  "type_vocab_size": 2,
  "hidden_dropout_prob": 0.1,
  "attention_probs_dropout_prob": 0.1,
  "initializer_range": 0.02,
}


@often
@hypothesis.given(
  st.one_of(json_files(CONFIG), json_files({**CONFIG, "model_type": "bert"}))
)
def test_any_json_is_a_config_or_refused(folder, content):
  path = folder / "bert_config.json"
  path.write_bytes(content)
  with only_our_errors():
    config = modeling.BertConfig.from_json_file(str(path))
    config.validate()
    config.to_json_string()


@pytest.fixture(scope="module")
def model():
  return modeling.BertModel(modeling.BertConfig.from_dict(CONFIG))


@pytest.fixture(scope="module")
def weight_files(folder, model, testdata):
  """Name of a file to damage -> what to load then; in a folder each."""
  made = folder / "weights"
  for name in ("tf1", "keras", "hf"):
    (made / name).mkdir(parents=True)
  variables = modeling.named_variables(model)
  checkpoints.save(str(made / "tf1" / "bert_model.ckpt"), variables)
  model.save(made / "keras" / "model.keras")
  model.save_weights(made / "keras" / "model.weights.h5")
  (made / "keras" / "bert_config.json").write_text(json.dumps(CONFIG))
  source = testdata / "parity" / "heads" / "BertModel"
  for name in ("config.json", "model.safetensors"):
    shutil.copy(source / name, made / "hf" / name)
  index = {"metadata": {}, "weight_map": {"x": "model.safetensors"}}
  (made / "hf" / "part.safetensors.index.json").write_text(json.dumps(index))
  return made


WEIGHTS = {
  "tf1/bert_model.ckpt.index": "tf1",
  "tf1/bert_model.ckpt.data-00000-of-00001": "tf1",
  "keras/model.keras": "keras/model.keras",
  "keras/model.weights.h5": "keras/model.weights.h5",
  "hf/model.safetensors": "hf",
  "hf/config.json": "hf",
  "hf/part.safetensors.index.json": "hf/part.safetensors.index.json",
}


@rarely
@pytest.mark.parametrize("name", WEIGHTS)
@hypothesis.given(st.data())
def test_any_weights_are_loaded_or_refused(weight_files, model, name, data):
  path = weight_files / name
  original = path.read_bytes()
  strategy = mutated(original)
  if name.endswith(".json"):
    strategy = json_files(json.loads(original))
  elif name.endswith(".safetensors"):
    # Most of the file are numbers, any of which is one.
    strategy = st.one_of(mutated(original), _mutated_head(original))
  try:
    path.write_bytes(data.draw(strategy))
    with only_our_errors():
      reader = checkpoints.open_reader(str(weight_files / WEIGHTS[name]))
      for tensor in reader.shapes:
        reader.get_tensor(tensor)
    with only_our_errors():
      checkpoints.load_weights(
        modeling.named_variables(model), str(weight_files / WEIGHTS[name])
      )
  finally:
    path.write_bytes(original)


def _mutated_head(content):
  """A safetensors file with another header; that is JSON behind its length."""
  size = int.from_bytes(content[:8], "little")
  head, rest = content[8 : 8 + size], content[8 + size :]
  return json_files(json.loads(head)).map(
    lambda x: len(x).to_bytes(8, "little") + x + rest
  )


# Small files of a run ---------------------------------------------------------

DESCRIPTION = {
  "format": 1,
  "kind": "classifier",
  "labels": ["a", "b"],
  "problem_type": "single_label",
  "inputs": {"serving_default": ["text"]},
}


@often
@hypothesis.given(json_files(DESCRIPTION))
def test_any_description_is_read_or_refused(folder, content):
  path = folder / predictor.DESCRIPTION_FILE
  path.parent.mkdir(exist_ok=True)
  path.write_bytes(content)
  with only_our_errors():
    found = predictor.read_description(str(folder))
    assert all(isinstance(x, str) for x in found.inputs["serving_default"])


MANIFEST = {
  "settings": {"seed": 1},
  "data": {"data": {"bytes": 1, "sha256_of_ends": "0"}},
  "versions": {"python": "3"},
  "finished": False,
  "results": {},
}


@often
@hypothesis.given(json_files(MANIFEST))
def test_any_manifest_is_read_or_refused(folder, content):
  path = folder / "run" / file_names.RUN_MANIFEST
  path.parent.mkdir(exist_ok=True)
  run = output_directory.OutputDirectory(str(path.parent), {"seed": 1}, [])
  for use in (
    run.open,
    lambda: run.check_settings(["seed"]),
    lambda: run.is_finished,
    lambda: run.record({"loss": 1.0}),
  ):
    path.write_bytes(content)
    with only_our_errors():
      use()


@pytest.fixture(scope="module")
def record_index(folder):
  """Bytes of an index, the same in every run, of a file in `folder`."""
  with contextlib.chdir(folder):
    pathlib.Path("indexed.tfrecord").write_bytes(record_file())
    os.utime("indexed.tfrecord", ns=(10**18, 10**18))
    source = records_module.RecordSource(["indexed.tfrecord"], SPECS)
    records_module.save_index("index.npz", source)
    return pathlib.Path("index.npz").read_bytes()


@often
@hypothesis.given(st.data())
def test_any_record_index_is_used_or_made_again(folder, record_index, data):
  with contextlib.chdir(folder):
    content = data.draw(mutated(record_index))
    pathlib.Path("index.npz").write_bytes(content)
    known = records_module.load_index("index.npz")
    source = records_module.RecordSource(["indexed.tfrecord"], SPECS, known)
    assert len(source) == 6
    assert (source.take(np.arange(6), step=0)["input_ids"] == 1).all()


@often
@hypothesis.given(st.one_of(st.binary(max_size=40), mutated(b"no\nyes\n")))
def test_any_labels_are_read_or_refused(folder, content):
  path = folder / "labels.txt"
  path.write_bytes(content)
  with only_our_errors():
    assert labels_module.read_labels(str(path))


LABELED = {**CONFIG, "id2label": {"0": "no", "1": "yes"}}


@often
@hypothesis.given(json_files({**LABELED, "architectures": ["BertModel"]}))
def test_any_config_names_labels_or_none(folder, content):
  path = folder / "config.json"
  path.write_bytes(content)
  labels = hugging_face.read_labels(str(path))
  assert labels is None or all(isinstance(label, str) for label in labels)


@pytest.fixture(scope="module")
def windows_file(folder, tokenizer):
  """Bytes of a cache of windows."""
  path = folder / "cached.json"
  path.write_text(json.dumps(SQUAD))
  examples = squad_data.read_squad_examples(str(path), False)
  windows = squad_data.make_windows(examples, tokenizer, 12, 3, 4, False)
  squad_data.save_windows(str(folder / "windows.npz"), windows, "key")
  return (folder / "windows.npz").read_bytes()


@often
@hypothesis.given(st.data())
def test_any_cache_of_windows_is_used_or_made_again(folder, windows_file, data):
  path = folder / "windows.npz"
  path.write_bytes(data.draw(mutated(windows_file)))
  windows = squad_data.load_windows(str(path), "key")
  assert windows is None or len(windows) >= 3


@rarely
@hypothesis.given(mutated(b'model_checkpoint_path: "bert_model.ckpt"\n'))
def test_any_checkpoint_state_is_followed_or_refused(folder, content):
  state = folder / "state"
  state.mkdir(exist_ok=True)
  (state / "checkpoint").write_bytes(content)
  with only_our_errors():
    checkpoints.open_reader(str(state))
