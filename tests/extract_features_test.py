"""Vectors of tokens and of sentences."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import extract_features
import modeling
import tokenization
import torch_features
import torch_oracle
from bert_keras3.tasks import feature_extraction
from bert_keras3.tasks import feature_files
from bert_keras3.tasks import feature_lines
from bert_keras3.weights import checkpoints

# Six decimals are printed: two roundings of almost the same number differ by
# 1e-6 at most, and float32 adds up with other orders of summation.
PRINTED = 1e-6
ROOT = pathlib.Path(extract_features.__file__).parent


@pytest.fixture(scope="module")
def folder(testdata):
  return testdata / "extract_features"


@pytest.fixture(scope="module")
def checkpoint(folder, tmp_path_factory):
  """A directory with torch_oracle's network, its config and vocabulary."""
  place = tmp_path_factory.mktemp("model")
  config = modeling.BertConfig.from_dict(torch_oracle.CONFIG)
  (place / "bert_config.json").write_text(config.to_json_string())
  (place / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
  model = modeling.BertModel(config)
  weights = modeling.named_variables(model)
  arrays = np.load(torch_features.WEIGHTS)
  for name, variable in weights.items():
    variable.assign(arrays[f"weight/{name}"])
  checkpoints.save(str(place / "bert_model.ckpt"), weights)
  return str(place / "bert_model.ckpt")


@pytest.fixture
def run(folder, checkpoint, tmp_path):
  """Extracts with some options, returns the path of the file."""

  def extract(**options):
    config = make_config(folder, checkpoint, tmp_path, **options)
    extract_features.check_flags(config)
    extract_features.extract(config)
    return config.output_file

  return extract


def make_config(folder, checkpoint, tmp_path, **options):
  defaults = {
    "input_file": str(folder / "lines.txt"),
    "output_file": str(tmp_path / "features"),
    "init_checkpoint": checkpoint,
    "max_seq_length": torch_features.MAX_SEQ_LENGTH,
    "layers": ",".join(map(str, torch_features.LAYERS)),
    "batch_size": 4,
  }
  return extract_features.FeatureConfig(**{**defaults, **options})


def read_lines(path):
  text = pathlib.Path(path).read_text()
  return [json.loads(line) for line in text.splitlines()]


def cut_values(lines):
  """The lines' JSON without their numbers, and the numbers as one array."""
  texts, values = [], []
  for line in lines:
    texts.append(re.sub(r'"values": \[[^]]*\]', '"values"', line))
    features = json.loads(line)["features"]
    values += [x["values"] for token in features for x in token["layers"]]
  return texts, np.array(values)


def assert_same_lines(path, expected_path, tolerance):
  found, expected = (
    cut_values(pathlib.Path(x).read_text().splitlines())
    for x in (path, expected_path)
  )
  # Tokens, layers, keys, their order and the order of lines, as text.
  assert found[0] == expected[0]
  assert np.abs(found[1] - expected[1]).max() <= tolerance


# Upstream's file --------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_json_lines_equal_recorded_pytorch(run, folder, batch_size):
  path = run(batch_size=batch_size)
  # Values are about 1, where float32 has steps of 1e-7.
  assert_same_lines(path, folder / "expected.jsonl", 3 * PRINTED)


@pytest.mark.parity
def test_json_lines_equal_pytorch(run, tmp_path):
  expected = tmp_path / "expected.jsonl"
  expected.write_text("\n".join(torch_features.token_lines()) + "\n")
  assert_same_lines(run(), expected, 3 * PRINTED)


@pytest.mark.parametrize(
  ("name", "options"),
  [
    (
      "tiny_layers-1,-2.jsonl",
      {"layers": "-1,-2", "max_seq_length": 32, "batch_size": 4},
    ),
    (
      "tiny_onehot_layer1.jsonl",
      {"layers": "1", "max_seq_length": 8, "batch_size": 32},
    ),
  ],
)
def test_json_lines_equal_upstreams(run, goldens, name, options):
  path = run(
    input_file=str(goldens / "inputs" / "extract_input.txt"),
    vocab_file=str(goldens / "vocab" / "vocab_3000.txt"),
    init_checkpoint=str(goldens / "model" / "tiny" / "bert_model.ckpt"),
    **options,
  )
  # Values are up to 6.6, and both sides are 3e-6 from a network in float64.
  expected = goldens / "cli" / "extract_features" / name
  assert_same_lines(path, expected, 5 * PRINTED)


@pytest.mark.parametrize("largest", [2, 3, np.inf, np.nan])
def test_numbers_are_written_as_by_python(largest):
  rng = np.random.default_rng(0)
  values = rng.normal(size=30000) * 10.0 ** rng.integers(-9, 2, 30000)
  ties = (2 * np.arange(-300, 300) + 1) / 2**7  # 0.0078125 and the like
  edges = [0.0, -0.0, -1e-9, 99.5, 1e-4, 9.9e-5, 1.0, -7.0, -5e-6, 0.1]
  values = np.concatenate([values, ties, edges, -values[:2], [10.0**largest]])
  values = np.clip(values, -99.999, None)
  values = values.astype(np.float32)[: len(values) // 9 * 9].reshape([-1, 9])
  values[3, 3] = 10.0**largest - (largest == 2)
  expected = [[round(float(x), 6) for x in row] for row in values]
  found = feature_files.format_rows(values)
  assert [f"[{row}]" for row in found] == [json.dumps(x) for x in expected]


@pytest.mark.parametrize("pooling", ["none", "mean"])
def test_lines_are_written_as_by_json(run, pooling):
  lines = pathlib.Path(run(pooling=pooling)).read_text().splitlines()
  assert len(lines) == 11
  assert [json.dumps(json.loads(line)) for line in lines] == lines


def test_lines_are_upstreams(tmp_path):
  path = tmp_path / "lines.txt"
  path.write_bytes(
    b" a  ||| b ||| c \r\n\n||| d\ne |||\n\xe2\x80\xa8f\xe2\x80\xa8"
  )
  found = feature_lines.read_examples(str(path))
  assert [(x.unique_id, x.text_a, x.text_b) for x in found] == [
    (0, "a  ||| b", "c"),
    (1, "", None),
    (2, "||| d", None),
    (3, "e |||", None),
    (4, "f", None),
  ]
  assert [x.text for x in found][:2] == ["a  ||| b ||| c", ""]


def test_lines_that_are_cut_are_counted(run, tmp_path, capsys):
  lines = tmp_path / "lines.txt"
  lines.write_text("a a a\na a a a\na a ||| a\na ||| a a\n\n")
  run(input_file=str(lines), max_seq_length=5)
  out = capsys.readouterr().out
  assert out.endswith("\n3 of 5 lines were cut at --max_seq_length=5\n")
  run(input_file=str(lines), max_seq_length=6)
  assert "were cut" not in capsys.readouterr().out


def test_features_for_programs_are_padded(folder):
  tokenizer = tokenization.FullTokenizer(str(folder / "vocab.txt"))
  example = feature_lines.InputExample(7, "the dog jumped", "yes")
  (found,) = feature_lines.convert_examples_to_features([example], 8, tokenizer)
  assert found.unique_id == 7
  assert found.tokens == "[CLS] the dog jump ##ed [SEP] yes [SEP]".split()
  (found,) = feature_lines.convert_examples_to_features(
    [feature_lines.InputExample(0, "yes")], 5, tokenizer
  )
  ids = tokenizer.convert_tokens_to_ids(["[CLS]", "yes", "[SEP]"])
  assert found.input_ids == [*ids, 0, 0]
  assert found.input_mask == [1, 1, 1, 0, 0]
  assert found.input_type_ids == [0, 0, 0, 0, 0]


def test_special_tokens_in_a_text_can_be_kept(run, tmp_path):
  lines = tmp_path / "lines.txt"
  lines.write_text("a [MASK]\n")
  options = {"input_file": str(lines), "special_tokens_in_text": "keep"}
  (record,) = read_lines(run(**options))
  tokens = [x["token"] for x in record["features"]]
  assert tokens == ["[CLS]", "a", "[MASK]", "[SEP]"]


# Sentence vectors -------------------------------------------------------------


@pytest.fixture
def token_vectors(run, tmp_path):
  """float32 [tokens, layers, width] of each line."""
  path = run(output_format="npz", output_file=str(tmp_path / "tokens.npz"))
  arrays = np.load(path)
  return np.split(arrays["values"], arrays["offsets"][1:-1])


POOL = {
  "cls": lambda x: x[0],
  "mean": lambda x: x.mean(axis=0),
  "max": lambda x: x.max(axis=0),
}


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", POOL)
def test_pooling_is_over_all_tokens_and_no_padding(
  run, token_vectors, pooling, normalize
):
  path = run(output_format="npz", pooling=pooling, normalize=normalize)
  arrays = np.load(path)
  expected = np.stack([POOL[pooling](x) for x in token_vectors])
  if normalize:
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
  assert arrays["layers"].tolist() == list(torch_features.LAYERS)
  assert arrays["embeddings"].dtype == np.float32
  assert arrays["embeddings"].shape == (11, 2, 16)
  # float32 sums of 16 values of about 1.
  np.testing.assert_allclose(arrays["embeddings"], expected, atol=1e-6)


def test_json_lines_of_sentence_vectors(run, tmp_path):
  records = read_lines(run(pooling="mean"))
  arrays = np.load(run(pooling="mean", output_format="npz"))
  assert [list(x) for x in records] == [["linex_index", "text", "layers"]] * 11
  assert [x["linex_index"] for x in records] == list(range(11))
  assert records[3]["text"] == "one ||| two ||| ten"
  assert records[5]["text"].startswith("Café naïve")
  indexes = [[layer["index"] for layer in x["layers"]] for x in records]
  assert indexes == [list(torch_features.LAYERS)] * 11
  values = [[layer["values"] for layer in x["layers"]] for x in records]
  # Half of the last of six decimals.
  np.testing.assert_allclose(values, arrays["embeddings"], atol=0.51 * PRINTED)


def test_only_cls_pooling_warns(run, capsys):
  run(pooling="cls")
  assert capsys.readouterr().out.count("poor sentence vector") == 1
  run(pooling="mean")
  assert "poor" not in capsys.readouterr().out


def check_minilm(run, folder, minilm_dir, expected):
  path = run(
    input_file=str(folder / "sentences.txt"),
    init_checkpoint=minilm_dir,
    max_seq_length=256,  # of its sentence_bert_config.json
    layers="-1",
    pooling="mean",
    normalize=True,
    output_format="npz",
    batch_size=16,
  )
  found = np.load(path)["embeddings"][:, 0]
  assert found.shape == expected.shape == (59, 384)
  # What was promised; float32 through six layers makes 4e-7.
  assert np.abs(found - expected).max() <= 1e-5


def test_minilm_equals_recorded_sentence_transformers(run, folder, minilm_dir):
  recorded = np.load(folder / "sentence_transformers.npz")
  check_minilm(run, folder, minilm_dir, recorded["embeddings"])


@pytest.mark.parity
def test_minilm_equals_sentence_transformers(run, folder, minilm_dir):
  pytest.importorskip("sentence_transformers")
  live = torch_features.sentence_vectors(minilm_dir)
  check_minilm(run, folder, minilm_dir, live)


# NumPy files, streaming, shapes -----------------------------------------------


def test_arrays_of_tokens(run):
  records = read_lines(run())
  arrays = np.load(run(output_format="npz"))  # not with pickle
  assert sorted(arrays) == ["layers", "offsets", "tokens", "values"]
  tokens = [[x["token"] for x in record["features"]] for record in records]
  assert arrays["tokens"].tolist() == sum(tokens, [])
  assert arrays["offsets"].tolist() == [
    0,
    *np.cumsum([len(x) for x in tokens]),
  ]
  values = [
    [layer["values"] for layer in token["layers"]]
    for record in records
    for token in record["features"]
  ]
  assert arrays["values"].dtype == np.float32
  assert arrays["values"].shape == (arrays["offsets"][-1], 2, 16)
  np.testing.assert_allclose(arrays["values"], values, atol=0.51 * PRINTED)


@pytest.mark.parametrize("output_format", ["jsonl", "npz"])
@pytest.mark.parametrize("pooling", ["none", "mean"])
def test_a_file_without_lines(run, tmp_path, output_format, pooling):
  lines = tmp_path / "lines.txt"
  lines.write_text("")
  path = run(
    input_file=str(lines), output_format=output_format, pooling=pooling
  )
  if output_format == "jsonl":
    assert read_lines(path) == []
  else:
    name = "values" if pooling == "none" else "embeddings"
    assert np.load(path)[name].shape == (0, 2, 16)


def test_lines_are_read_as_they_are_needed():
  taken = []

  def lines():
    for number in range(100):
      taken.append(number)
      yield feature_lines.Line(number, "", [0] * 10, 10)

  chunks = feature_lines.make_chunks(lines(), 4, bytes_per_token=0)
  assert taken == []
  limit = feature_lines.CHUNK_BYTES // 10 // 6 + 1
  assert len(next(chunks)) == len(taken) == 100  # up to 64 batches of 4
  chunks = feature_lines.make_chunks(lines(), 4, bytes_per_token=limit)
  # Full after six lines; two more complete a batch.
  assert [x.number for x in next(chunks)] == list(range(8))
  assert len(taken) == 108
  assert [len(x) for x in chunks] == [8] * 11 + [4]


@pytest.mark.parametrize("pooling", ["none", "mean"])
def test_chunks_make_no_difference(run, monkeypatch, tmp_path, pooling):
  options = {"batch_size": 2, "pooling": pooling}
  whole = pathlib.Path(run(**options)).read_text()
  monkeypatch.setattr(feature_lines, "BATCHES_PER_CHUNK", 1)
  path = run(**options, output_file=str(tmp_path / "chunks"))
  found = pathlib.Path(path).read_text()
  number = r"-?\d+\.\d+(?:e-\d+)?"
  assert re.sub(number, "", found) == re.sub(number, "", whole)
  found, whole = (
    np.array(re.findall(number, x), float) for x in (found, whole)
  )
  # Other lines in a batch, another order of summation.
  assert np.abs(found - whole).max() <= 2 * PRINTED


def test_the_model_is_traced_once_for_all_lengths(run, monkeypatch, tmp_path):
  lines = tmp_path / "lines.txt"
  lines.write_text("".join("a " * n + "\n" for n in range(22)))
  calls = []
  pool = feature_extraction.pool
  monkeypatch.setattr(feature_lines, "BATCHES_PER_CHUNK", 2)
  monkeypatch.setattr(
    feature_extraction, "pool", lambda *args: calls.append(1) or pool(*args)
  )
  options = {"input_file": str(lines), "max_seq_length": 24, "layers": "-1"}
  assert len(read_lines(run(batch_size=2, **options))) == 22
  assert len(calls) == 1


@pytest.mark.parametrize(
  "device",
  [
    {"distribution_strategy": "mirrored", "num_devices": 2},
    {"xla": "true"},
  ],
)
def test_devices_make_no_difference(run, folder, device):
  path = run(**device, batch_size=3)
  assert_same_lines(path, folder / "expected.jsonl", 3 * PRINTED)


@pytest.mark.parametrize("output_format", ["jsonl", "npz"])
def test_an_interrupted_run_leaves_what_was_there(
  run, monkeypatch, tmp_path, output_format
):
  (tmp_path / "features").write_text("old")
  compute = feature_extraction.FeatureExtractor.compute

  def fail_later(extractor, lines, advance):
    if lines[0].number:
      raise KeyboardInterrupt
    return compute(extractor, lines, advance)

  monkeypatch.setattr(feature_lines, "BATCHES_PER_CHUNK", 1)
  monkeypatch.setattr(
    feature_extraction.FeatureExtractor, "compute", fail_later
  )
  with pytest.raises(KeyboardInterrupt):
    run(output_format=output_format)
  assert os.listdir(tmp_path) == ["features"]
  assert (tmp_path / "features").read_text() == "old"


# Attention --------------------------------------------------------------------


def read_report(path):
  """The data of a report's page."""
  page = pathlib.Path(path).read_text()
  data = re.search(
    r'<script type="application/json" id="report-data">(.*?)</script>',
    page,
    re.DOTALL,
  )
  return page, json.loads(data[1])


def test_attention_of_all_lines(run, tmp_path, capsys):
  path = str(tmp_path / "attention.html")
  records = read_lines(run(attention_report=path, pooling="none"))
  assert f"attention in 11 of 11 lines: {path}" in capsys.readouterr().out
  _, data = read_report(path)
  assert (data["layers"], data["heads"]) == (2, 2)
  assert [x["tokens"] for x in data["sentences"]] == [
    [x["token"] for x in record["features"]] for record in records
  ]
  assert [x["number"] for x in data["sentences"]] == list(range(11))
  assert data["sentences"][1]["num_first"] == 6


def test_attention_is_computed_for_what_fits(
  run, monkeypatch, tmp_path, capsys
):
  from bert_keras3.tasks import attention_report

  class SmallReport(attention_report.AttentionReport):
    def add(self, sentence):
      if len(self._entries) == 3:
        self.num_left_out += 1
        return False
      return super().add(sentence)

  computed = []
  attention = feature_extraction.FeatureExtractor.attention
  monkeypatch.setattr(attention_report, "AttentionReport", SmallReport)
  monkeypatch.setattr(
    feature_extraction.FeatureExtractor,
    "attention",
    lambda self, line: computed.append(line.number) or attention(self, line),
  )
  path = str(tmp_path / "attention.html")
  run(attention_report=path, pooling="mean")
  assert computed == [0, 1, 2, 3]  # the last, to find that it does not fit
  assert "attention in 3 of 11 lines" in capsys.readouterr().out
  page, data = read_report(path)
  assert len(data["sentences"]) == 3
  assert "left out: 8" in page


def test_attention_is_the_models(folder, checkpoint, tmp_path):
  config = make_config(folder, checkpoint, tmp_path)
  extractor = feature_extraction.FeatureExtractor(config)
  (lines,) = extractor.read()
  ids = np.zeros([1, 16], np.int32)
  segment_ids = np.zeros([1, 16], np.int32)
  line = lines[1]
  length = len(line.ids)
  ids[0, :length] = line.ids
  segment_ids[0, line.num_first : length] = 1
  model = modeling.BertModel(modeling.BertConfig.from_dict(torch_oracle.CONFIG))
  checkpoints.load_weights(modeling.named_variables(model), checkpoint)
  expected = model.attention_probs(
    {
      "input_ids": ids,
      "input_mask": (np.arange(16) < length)[np.newaxis].astype(np.int32),
      "token_type_ids": segment_ids,
    }
  )[0, :, :, :length, :length]
  # float32 rounding of a softmax.
  np.testing.assert_allclose(extractor.attention(line), expected, atol=1e-6)


# Mistakes ---------------------------------------------------------------------


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"layers": "-1,x"}, "--layers='-1,x' should be numbers with commas"),
    ({"layers": ""}, "--layers='' should be numbers"),
    ({"layers": "2"}, "no layer 2; this model's are 0 to 1, or -2 to -1"),
    ({"layers": "-1,-3"}, "no layer -3; this model's are"),
    ({"normalize": True}, "--normalize needs --pooling"),
    ({"max_seq_length": 25}, "max_position_embeddings; use 24 or less"),
    ({"input_file": "/none.txt"}, "--input_file=/none.txt: there is no such"),
    ({"input_file": "/"}, "--input_file=/ is a directory; name a file in it"),
    ({"output_file": "/none/x"}, "/none is no directory"),
    ({"attention_report": "/none/x"}, "--attention_report=/none/x: /none is"),
    ({"init_checkpoint": "/none/bert_model.ckpt"}, "/none/bert_model.ckpt"),
  ],
)
def test_mistakes_are_explained(run, options, words):
  with pytest.raises((ValueError, OSError), match=words):
    run(**options)


@pytest.mark.parametrize("flag", ["output_file", "attention_report"])
@pytest.mark.parametrize(
  "name",
  [
    "vocab.txt",
    "bert_config.json",
    "bert_model.ckpt.index",
    "bert_model.ckpt.data-00000-of-00001",
  ],
)
def test_the_models_own_files_are_not_overwritten(run, checkpoint, flag, name):
  path = pathlib.Path(checkpoint).parent / name
  content = path.read_bytes()
  with pytest.raises(ValueError, match=f"--{flag}=.*/{name} is also .* an inp"):
    run(**{flag: str(path)})
  assert path.read_bytes() == content


def test_a_config_that_is_nowhere_is_asked_for(run, checkpoint, tmp_path):
  for path in pathlib.Path(checkpoint).parent.glob("bert_model.ckpt*"):
    (tmp_path / path.name).write_bytes(path.read_bytes())
  words = "pass --bert_config_file: .* --init_checkpoint=.*/bert_model.ckpt$"
  with pytest.raises(FileNotFoundError, match=words):
    run(init_checkpoint=str(tmp_path / "bert_model.ckpt"))


def test_several_processes_are_refused(run):
  with pytest.raises(ValueError, match="split the input file"):
    run(distribution_strategy="multi_worker")


def run_script(*args):
  return subprocess.run(
    [sys.executable, str(ROOT / "extract_features.py"), *args],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )


def test_the_command_line(folder, checkpoint, tmp_path):
  path = tmp_path / "features.jsonl"
  result = run_script(
    f"--input_file={folder / 'lines.txt'}",
    f"--output_file={path}",
    f"--init_checkpoint={checkpoint}",
    "--layers=-1,0",
    "--max_seq_length=16",
    "--use_one_hot_embeddings",
    "--num_tpu_cores=8",
  )
  assert result.returncode == 0, result.stderr
  assert f"11 lines: {path}" in result.stdout
  assert_same_lines(path, folder / "expected.jsonl", 3 * PRINTED)
