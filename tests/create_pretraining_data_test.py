"""Records equal upstream's; mistakes are named; no half-written output."""

import io
import itertools
import json
import pathlib
import random
import subprocess
import sys

import pytest
import tensorflow as tf

import create_pretraining_data
import reference_pretraining_data as reference
import tokenization
from bert_keras3.console import start
from bert_keras3.data import features as input_pipeline
from bert_keras3.data import files as files_module
from bert_keras3.data import pretraining_instances
from bert_keras3.data import word_stream

SCRIPT = pathlib.Path(create_pretraining_data.__file__)
SETS = ["defaults", "short_records", "whole_words", "another_seed"]
GOLDEN_SETS = [
  "multi_2in2out",
  "multi_order",
  "nasty",
  "pydoc_default",
  "pydoc_dupe1",
  "pydoc_s64p10_dupe2_seed7",
  "pydoc_wwm_dupe1_s512",
  "sample_cased",
  "sample_default",
  "sample_dupe2",
  "sample_s64p10",
  "sample_seed7",
  "sample_short_mlm30",
  "sample_wwm",
  "sample_wwm_s32p5",
  "single_doc",
]


@pytest.fixture
def folder(testdata):
  return testdata / "pretraining_data"


@pytest.fixture
def tokenizer(folder):
  return tokenization.FullTokenizer(str(folder / "vocab.txt"))


def expected_set(folder, name):
  sets = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
  assert list(sets) == SETS
  files = [str(folder / file) for file in sets[name]["files"]]
  return files, sets[name]["options"], sets[name]["sha16"]


def make_instances(input_files, tokenizer, options):
  documents = pretraining_instances.read_documents(input_files, tokenizer)
  config = pretraining_instances.DataConfig(**options)
  return pretraining_instances.create_training_instances(
    documents, tokenizer, config
  )


def read_records(path):
  """Records of a TFRecord file, each a dict from name to a list."""
  records = []
  for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
    example = tf.train.Example.FromString(serialized)
    records.append(
      {
        name: list(getattr(feature, feature.WhichOneof("kind")).value)
        for name, feature in example.features.feature.items()
      }
    )
  return records


def read_digests(path):
  return [reference.sha16(record) for record in read_records(path)]


def write_digests(instances, tmp_path, file_count=1):
  paths = [str(tmp_path / f"{i}.tfrecord") for i in range(file_count)]
  create_pretraining_data.write_instance_to_example_files(instances, paths)
  return [read_digests(path) for path in paths]


# Equality with upstream


@pytest.mark.parametrize("name", GOLDEN_SETS)
def test_records_equal_upstreams(name, goldens, tmp_path):
  folder = goldens / "pretraining_data"
  sets = json.loads((folder / "sets.json").read_text())["sets"]
  assert list(sets) == GOLDEN_SETS
  given = dict(
    flag.removeprefix("--").split("=") for flag in sets[name]["flags"].split()
  )
  patterns = given.pop("input_file").split(",")
  input_files = files_module.find_files(
    "input_file", ",".join(str(goldens / pattern) for pattern in patterns)
  )
  tokenizer = tokenization.FullTokenizer(
    str(goldens / "vocab" / "vocab.txt"),
    do_lower_case=given.pop("do_lower_case", "True") == "True",
  )
  options = {
    option: type(reference.DEFAULTS[option])(json.loads(value.lower()))
    for option, value in given.items()
  }
  files = sets[name]["files"]
  instances = make_instances(input_files, tokenizer, options)
  assert write_digests(instances, tmp_path, len(files)) == [
    (folder / f"{file}.sha16").read_text().split() for file in files
  ]


@pytest.mark.parametrize("name", SETS)
def test_records_equal_those_of_the_checked_reference(
  name, folder, tokenizer, tmp_path
):
  input_files, options, expected = expected_set(folder, name)
  instances = make_instances(input_files, tokenizer, options)
  assert write_digests(instances, tmp_path) == [expected]


@pytest.mark.parametrize("name", SETS)
def test_the_reference_is_what_it_was(name, folder, tokenizer):
  input_files, options, expected = expected_set(folder, name)
  records = reference.create_features(
    input_files, tokenizer, {**reference.DEFAULTS, **options}
  )
  assert [reference.sha16(record) for record in records] == expected


def test_files_get_records_in_turns(folder, tokenizer, tmp_path):
  input_files, options, expected = expected_set(folder, "whole_words")
  instances = make_instances(input_files, tokenizer, options)
  digests = write_digests(instances, tmp_path, 4)
  assert digests == [expected[i::4] for i in range(4)]


PIECES = ["a", "##a", "b", "##b", "##ab", "c", ".", "long", "##er", "word"]


def write_vocab(path, rng):
  """Some tokens are there twice, as in no good vocabulary."""
  tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES]
  tokens += [f"[unused{i}]" for i in range(rng.choice([0, 1, 240, 500]))]
  tokens += rng.choices(tokens, k=rng.choice([0, 0, 3, 20]))
  if rng.random() < 0.3:
    rng.shuffle(tokens)
  path.write_text("\n".join(tokens), encoding="utf-8")
  return tokenization.FullTokenizer(str(path))


def write_text(path, rng):
  """Words of many pieces, and documents of one or many, long sentences."""
  longest = rng.choice([1, 6, 40, 200])
  stems = rng.choice([["a", "b"], ["a", "long", "word", ".", "?"]])
  lines = []
  for _ in range(rng.choice([1, 1, 2, 12])):
    for _ in range(rng.choice([1, 2, 15])):
      words = [
        rng.choice(stems) + "".join(rng.choices("ab", k=rng.choice([0, 0, 5])))
        for _ in range(rng.randint(1, longest))
      ]
      lines.append(" ".join(words))
    lines.append("")
  path.write_text("\n".join(lines), encoding="utf-8")
  return [str(path)]


def random_options(rng):
  length = rng.choice([5, 6, 16, 40, 128, 300])
  return {
    "do_whole_word_mask": rng.random() < 0.5,
    "max_seq_length": length,
    "max_predictions_per_seq": rng.randint(1, length - 3),
    "random_seed": rng.choice([0, 1, -3, 12345, 2**70]),
    "dupe_factor": rng.choice([1, 3]),
    "masked_lm_prob": rng.choice([0.01, 0.15, 0.5, 1.0]),
    "short_seq_prob": rng.choice([0.0, 0.1, 1.0]),
  }


def rows_of(features):
  """Arrays [records, length] as one dict of lists a record."""
  lists = {name: values.tolist() for name, values in features.items()}
  return [
    dict(zip(lists, row, strict=True))
    for row in zip(*lists.values(), strict=True)
  ]


@pytest.mark.parametrize("seed", range(80))
def test_any_text_and_flags_give_the_references_records(
  seed, tmp_path, monkeypatch
):
  rng = random.Random(seed)
  # Random words run out at all places.
  block = rng.choice([1, 3, 50, 1 << 14])
  monkeypatch.setattr(word_stream, "_BLOCK_WORDS", block)
  tokenizer = write_vocab(tmp_path / "vocab.txt", rng)
  input_files = write_text(tmp_path / "text.txt", rng)
  options = random_options(rng)
  instances = make_instances(input_files, tokenizer, options)
  expected = reference.create_features(input_files, tokenizer, options)
  assert rows_of(instances.features(0, len(instances))) == expected


def test_instances_read_as_upstreams_do(folder, tokenizer):
  input_files, options, _ = expected_set(folder, "whole_words")
  options = {**reference.DEFAULTS, **options}
  instances = make_instances(input_files, tokenizer, options)
  documents = reference.read_documents(input_files, tokenizer)
  expected = reference.create_instances(
    documents, list(tokenizer.vocab), options
  )
  assert [tuple(x) for x in instances] == [tuple(x) for x in expected]
  assert instances[-1] == instances[len(instances) - 1]


def test_a_word_longer_than_all_predictions_stays_whole(tmp_path):
  tokenizer = write_vocab(tmp_path / "vocab.txt", random.Random(0))
  text = tmp_path / "text.txt"
  text.write_text("longab wordba\nlonger\n")
  instances = make_instances(
    [str(text)],
    tokenizer,
    {"do_whole_word_mask": True, "max_predictions_per_seq": 1},
  )
  assert {len(x.masked_lm_positions) for x in instances} == {0}
  assert all("[MASK]" not in x.tokens for x in instances)


def test_positions_may_need_more_than_16_bits(folder, tokenizer, tmp_path):
  text = tmp_path / "text.txt"
  text.write_text("time\n" + "the ground " * 34_000 + "\n")
  options = {
    **reference.DEFAULTS,
    "max_seq_length": 69_000,
    "max_predictions_per_seq": 68_000,
    "masked_lm_prob": 0.5,
    "dupe_factor": 1,
  }
  instances = make_instances([str(text)], tokenizer, options)
  assert max(x.masked_lm_positions[-1] for x in instances) > 1 << 16
  expected = reference.create_features([str(text)], tokenizer, options)
  assert rows_of(instances.features(0, len(instances))) == expected


# Random numbers


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 14])
def test_word_stream_draws_what_random_draws(block, monkeypatch):
  monkeypatch.setattr(word_stream, "_BLOCK_WORDS", block)
  plan = random.Random(block)
  rng = random.Random(99)
  rng.random()
  rng.getrandbits(32)  # From the middle of a block of its own, too.
  stream = word_stream.WordStream(rng)
  for _ in range(300):
    limit = plan.choice([1, 2, 3, 4, 127, 128, 255, 256, 257, 600, 2**31 + 1])
    assert stream.below(limit) == rng.randrange(limit)
    assert stream.random() == rng.random()
    count = plan.choice([0, 1, 2, 30])
    flips = [0 if rng.random() < 0.5 else 1 for _ in range(count)]
    assert list(stream.flips(count)) == flips
    ours = list(range(plan.choice([0, 1, 2, 3, 4, 5, 64, 127, 128, 300, 700])))
    theirs = list(ours)
    kept = plan.choice([None, 1, 20, 300])
    stream.shuffle(ours, kept)
    rng.shuffle(theirs)
    assert ours[:kept] == theirs[:kept]


def test_word_stream_knows_which_randoms_are_below():
  stream = word_stream.WordStream(random.Random(5))
  rng = random.Random(5)
  stream.reserve(2000)
  expected = [rng.random() < 0.8 for _ in range(1000)]
  assert [bool(x) for x in stream.is_below[0.8][:2000:2]] == expected


# Files


def test_only_a_blank_line_ends_a_document(folder, tokenizer):
  files = [str(folder / "first.txt"), str(folder / "second.txt")]
  documents = pretraining_instances.read_documents(files, tokenizer)
  expected = reference.read_documents(files, tokenizer)
  counts = [len(document) for document in expected]
  starts = list(documents.documents)
  assert [b - a for a, b in zip(starts, starts[1:], strict=False)] == counts
  assert str(documents) == (
    f"{len(counts)} documents, {sum(counts)} sentences,"
    f" {sum(len(s) for document in expected for s in document)} tokens"
  )


def test_nothing_is_left_of_a_failure(folder, tokenizer, tmp_path, monkeypatch):
  input_files, options, _ = expected_set(folder, "defaults")
  instances = make_instances(input_files, tokenizer, options)
  serialize = input_pipeline.serialize_examples
  calls = []

  def fail_at_third(features, specs):
    calls.append(len(list(tmp_path.iterdir())))
    if len(calls) == 3:
      raise RuntimeError("power cut")
    return serialize(features, specs)

  monkeypatch.setattr(input_pipeline, "serialize_examples", fail_at_third)
  monkeypatch.setattr(create_pretraining_data, "_INSTANCES_PER_WRITE", 8)
  paths = [str(tmp_path / "a"), str(tmp_path / "b")]
  with pytest.raises(RuntimeError, match="power cut"):
    create_pretraining_data.write_instance_to_example_files(instances, paths)
  assert calls == [2, 2, 2]
  assert list(tmp_path.iterdir()) == []


# Mistakes


def message_of_mistake(function, *arguments, **options):
  """The text for the user, if the error counts as a user's mistake."""
  with pytest.raises((ValueError, OSError)) as caught:
    function(*arguments, **options)
  assert start.is_users_mistake(caught.value)
  return str(caught.value)


@pytest.mark.parametrize(
  ("options", "named"),
  [
    ({"max_seq_length": 4}, ["--max_seq_length=4", "5 or more"]),
    ({"max_predictions_per_seq": 0}, ["--max_predictions_per_seq=0"]),
    (
      {"max_predictions_per_seq": 126},
      ["--max_predictions_per_seq=126", "--max_seq_length=128", "1 to 125"],
    ),
    ({"masked_lm_prob": 0.0}, ["--masked_lm_prob=0.0"]),
    ({"masked_lm_prob": 1.01}, ["--masked_lm_prob=1.01"]),
    ({"masked_lm_prob": float("nan")}, ["--masked_lm_prob=nan"]),
    ({"short_seq_prob": -0.1}, ["--short_seq_prob=-0.1"]),
    ({"short_seq_prob": 1.5}, ["--short_seq_prob=1.5"]),
    ({"dupe_factor": 0}, ["--dupe_factor=0", "1 or more"]),
  ],
)
def test_impossible_settings(options, named):
  message = message_of_mistake(pretraining_instances.DataConfig, **options)
  assert [name for name in named if name not in message] == []


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \t\n\xe2\x80\x8b\n"])
def test_text_without_a_token(content, tokenizer, tmp_path):
  path = tmp_path / "empty.txt"
  path.write_bytes(content)
  message = message_of_mistake(
    pretraining_instances.read_documents, [path], tokenizer
  )
  assert f"--input_file: no text in {path}" in message


def test_text_that_is_not_utf8(tokenizer, tmp_path):
  path = tmp_path / "latin1.txt"
  path.write_bytes(b"The end.\n\nCaf\xe9.\n")
  message = message_of_mistake(
    pretraining_instances.read_documents, [str(path)], tokenizer
  )
  assert f"{path}, line 3: not UTF-8" in message


@pytest.mark.parametrize("token", ["[CLS]", "[SEP]", "[MASK]"])
def test_vocabulary_without_a_special_token(token, folder, tmp_path):
  tokens = (folder / "vocab.txt").read_text(encoding="utf-8").split()
  tokens.remove(token)
  (tmp_path / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
  tokenizer = tokenization.FullTokenizer(str(tmp_path / "vocab.txt"))
  message = message_of_mistake(
    make_instances, [str(folder / "first.txt")], tokenizer, {}
  )
  assert f"--vocab_file: there is no {token} among its" in message


# What the user sees


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_progress_is_a_bar_on_a_terminal(folder, tokenizer, monkeypatch):
  terminal = Terminal()
  monkeypatch.setattr(sys, "stderr", terminal)
  input_files, options, _ = expected_set(folder, "short_records")
  make_instances(input_files, tokenizer, options)
  shown = terminal.getvalue()
  assert "Reading text: 100%" in shown
  assert "Making instances: 100%" in shown


def test_progress_is_lines_elsewhere(folder, tokenizer, monkeypatch, capsys):
  monkeypatch.setattr(pretraining_instances, "_SECONDS_PER_PROGRESS_LINE", 0)
  input_files, options, _ = expected_set(folder, "defaults")
  make_instances(input_files, tokenizer, options)
  lines = capsys.readouterr().err.splitlines()
  size = sum(pathlib.Path(path).stat().st_size for path in input_files)
  # Files are read with every "\r" removed: 3 bytes less than they have.
  assert lines[0] == f"Reading text: 99 % of {size} B"
  tenths = [f"Making instances: {p} % of 70 documents" for p in range(10, 101)]
  assert lines[1:] == tenths[::10]


def run_script(*arguments):
  return subprocess.run(
    [sys.executable, str(SCRIPT), *arguments],
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_script_as_a_whole(folder, tmp_path):
  _, _, expected = expected_set(folder, "another_seed")
  outputs = [tmp_path / "a.tfrecord", tmp_path / "b.tfrecord"]
  run = run_script(
    f"--input_file={folder}/fir*.txt",
    f"--output_file={outputs[0]},{outputs[1]}",
    f"--vocab_file={folder}/vocab.txt",
    "--random_seed=7",
    "--short_seq_prob=0.5",
    "--masked_lm_prob=0.3",
    "--max_seq_length=48",
    "--max_predictions_per_seq=12",
    "--dupe_factor=3",
    "--verbose_examples=2",
  )
  assert run.returncode == 0, run.stderr
  assert [read_digests(x) for x in outputs] == [expected[::2], expected[1::2]]
  assert sorted(tmp_path.iterdir()) == outputs
  assert f"{len(expected)} instances written to {outputs[0]}," in run.stdout
  assert run.stdout.count("\n  masked: ") == 2
  assert run.stdout.startswith("Example 0\n  tokens: [CLS] ")


@pytest.mark.parametrize(("mode", "count"), [("keep", 1), ("split", 3)])
def test_special_tokens_in_text(tmp_path, mode, count):
  tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[E1]", "a", "b", "."]
  (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n")
  (tmp_path / "text.txt").write_text("a [E1] .\nb .\n\na .\nb b .\n")
  run = run_script(
    f"--input_file={tmp_path}/text.txt",
    f"--output_file={tmp_path}/records",
    f"--vocab_file={tmp_path}/vocab.txt",
    f"--special_tokens_in_text={mode}",
  )
  assert run.returncode == 0, run.stderr
  # "a", "b", "a", "b", "b", four full stops, and [E1] or what it is split into.
  assert f"4 sentences, {9 + count} tokens" in run.stdout


def test_a_mistake_is_one_sentence_and_leaves_nothing(folder, tmp_path):
  run = run_script(
    f"--input_file={folder}/first.txt",
    f"--output_file={tmp_path}/records",
    f"--vocab_file={folder}/vocab.txt",
    "--dupe_factor=0",
  )
  assert run.returncode == 1
  assert run.stderr == (
    "create_pretraining_data: error: --dupe_factor=0 makes no record; pass 1 or"
    " more\n"
  )
  assert list(tmp_path.iterdir()) == []


# Odd bytes


GOOD_LINES = [b"w1 w2 w3", b"w4 w5", b"", b"w6 w7 w8", b"w9 w1"]


def sentences_of(tmp_path, content):
  """Lists of tokens, one for each sentence, and the documents' bounds."""
  words = [f"w{i}" for i in range(10)]
  vocab = tmp_path / "vocab.txt"
  vocab.write_text("\n".join(["[UNK]", "x", *words]) + "\n")
  path = tmp_path / "text.txt"
  path.write_bytes(content)
  tokenizer = tokenization.FullTokenizer(vocab)
  found = pretraining_instances.read_documents([path], tokenizer)
  bounds = list(found.sentences)
  tokens = [
    tokenizer.convert_ids_to_tokens(found.token_ids[a:b].tolist())
    for a, b in itertools.pairwise(bounds)
  ]
  return tokens, list(found.documents)


@pytest.mark.parametrize(
  ("line", "tokens"),
  [
    (b"\0", None),
    (b"x\0x", ["[UNK]"]),
    (b"\0x \0", ["x"]),
    (b"x \r x", ["x", "x"]),
    (b"\xef\xbb\xbf", None),
    (b"x " * 5_000_000, ["x"] * 5_000_000),
    (b"x" * 10_000_000, ["[UNK]"]),
    (b"\0" * 10_000_000, None),
    ("\u0301".encode() * 5_000_000, None),
    ("\u4e2d".encode() * 1_000_000, ["[UNK]"] * 1_000_000),
  ],
  ids=range(10),
)
@pytest.mark.parametrize("place", [0, 1, 5])
def test_an_odd_line_changes_none_of_its_neighbours(
  tmp_path, place, line, tokens
):
  """Ten megabytes of a line either."""
  expected, bounds = sentences_of(tmp_path, b"\n".join(GOOD_LINES))
  lines = [*GOOD_LINES[:place], line, *GOOD_LINES[place:]]
  found, found_bounds = sentences_of(tmp_path, b"\n".join(lines))
  if tokens is None:
    assert (found, found_bounds) == (expected, bounds)
  else:
    number = place - (place > 2)  # The blank line is no sentence.
    assert found.pop(number) == tokens
    assert found == expected


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_marks_change_nothing(tmp_path, end, mark):
  expected = sentences_of(tmp_path, b"\n".join(GOOD_LINES))
  content = mark + (end or b"\n").join(GOOD_LINES) + end
  assert sentences_of(tmp_path, content) == expected


def test_a_text_whose_lines_end_in_cr_alone_is_refused(tmp_path):
  """Read as upstream reads it, all of it would be one sentence."""
  with pytest.raises(ValueError, match="text.txt, line 1: .* CR alone.* tr "):
    sentences_of(tmp_path, b"\r".join(GOOD_LINES))
