"""Answers from a graph, against windows and decoding in Python."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import modeling
import reference_squad
import tokenization
from bert_keras3.serving import graph_squad
from bert_keras3.serving import graph_tokenization
from bert_keras3.tasks import squad_data
from bert_keras3.tasks import squad_decoding
from conftest import SHARED

# Both sides add the same float32 logits as float64; we return float32.
RELATIVE_TOLERANCE = 1e-6
# A model is run on windows that are padded otherwise.
MODEL_TOLERANCE = 1e-5

WINDOWING = {"max_seq_length": 40, "doc_stride": 12, "max_query_length": 8}
# Some are in the vocabulary, some in pieces, some unknown.
PLAIN_WORDS = "the old bridge beijing built by early electron 1861 zq cafe"
ODD_WORDS = (
  "(1861-1943). café cafe\u0301 $42 42\xa0km 北京是中国 한국 ภาษาไทย 👍🏽 "
  "e\u0323\u0302 \u0301 ﬁ İstanbul ΟΔΟΣ a\u200bb \u00ad [SEP] "
  "\U0001f1e8\U0001f1ed x\x00y \ufffd"
)
BLANKS = [" ", " ", " ", "  ", "\t", "\n", "\r\n ", "\u202f", " \u3000"]


def random_texts(count, words, blanks=(" ",), longest=120, seed=0):
  rng = np.random.default_rng(seed)
  texts = []
  for length in rng.integers(longest, size=count).tolist():
    chosen = rng.choice(words, length).tolist()
    between = rng.choice(blanks, length).tolist()
    texts.append("".join(x + y for x, y in zip(chosen, between, strict=True)))
  return texts


def plain_texts(count, **options):
  return random_texts(count, PLAIN_WORDS.split(" "), **options)


def odd_texts(count, **options):
  words = [*PLAIN_WORDS.split(" "), *ODD_WORDS.split(" ")]
  return random_texts(count, words, BLANKS, **options)


class Lookup(tf.Module):
  """Stands for a model: logits that depend on ids, and on those before them."""

  def __init__(self, vocab_size, seed=0, levels=None):
    super().__init__()
    rng = np.random.default_rng(seed)
    shape = [2, vocab_size]
    table = rng.normal(0, 4, shape)
    if levels:
      table = rng.integers(levels, size=shape)
    # Padding would be the best if it could be.
    table[:, 0] = 100
    self.table = tf.Variable(table, dtype=tf.float32)

  def __call__(self, features):
    ids = features["input_ids"]
    logits = tf.gather(self.table, ids, axis=1)
    before = tf.gather(
      self.table, tf.pad(ids, [[0, 0], [1, 0]])[:, :-1], axis=1
    )
    return tf.unstack(logits - before)


class Case:
  """A tokenizer in Python and in a graph, and a model."""

  def __init__(self, vocab_file, model=None, do_lower_case=True):
    vocab_file = str(vocab_file)
    self.tokenizer = tokenization.FullTokenizer(vocab_file, do_lower_case)
    self.graph_tokenizer = graph_tokenization.GraphTokenizer(
      vocab_file, do_lower_case
    )
    self.model = model or Lookup(len(self.tokenizer.vocab))

  def reader(self, windowing=None, **decoding):
    return graph_squad.GraphAnswerFinder(
      self.graph_tokenizer,
      self.model,
      graph_squad.WindowingConfig(**{**WINDOWING, **(windowing or {})}),
      squad_decoding.DecodingConfig(**decoding),
      self.tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"]),
    )

  def windows(self, questions, contexts, **windowing):
    """List of SquadExample, and their Windows."""
    examples = []
    for number, (question, context) in enumerate(
      zip(questions, contexts, strict=True)
    ):
      context = tokenization.convert_to_unicode(context)
      words, offsets = squad_data.split_words(context)
      examples.append(
        squad_data.SquadExample(
          f"q{number}",
          tokenization.convert_to_unicode(question),
          words,
          context=context,
          word_offsets=offsets,
        )
      )
    windowing = {**WINDOWING, **windowing}
    windowing.pop("windows_at_once", None)
    windows = squad_data.make_windows(
      examples, self.tokenizer, **windowing, is_training=False
    )
    return examples, windows

  def logits(self, windows):
    """float32 [2, windows, length], -inf for padding."""
    lengths = windows.sequences.lengths
    longest = int(lengths.max(initial=0))
    batch = windows.sequences.pad(np.arange(len(windows)), longest)
    logits = np.array([x.numpy() for x in self.model(batch)])
    logits[:, np.arange(longest) >= lengths[:, np.newaxis]] = -np.inf
    return logits

  def decode(self, questions, contexts, windowing=None, **decoding):
    examples, windows = self.windows(questions, contexts, **(windowing or {}))
    config = squad_decoding.DecodingConfig(**decoding)
    logits = self.logits(windows)
    return squad_decoding.decode(
      examples, windows, *logits, self.tokenizer, config
    )


@pytest.fixture(scope="session")
def vocab_file(testdata):
  return testdata / "squad" / "vocab.txt"


@pytest.fixture(scope="session")
def case(vocab_file):
  return Case(vocab_file)


@pytest.fixture(scope="session")
def readers(case):
  """Two readers, traced once for all tests, by version_2_with_negative."""
  return {
    is_version_2: case.reader(
      n_best_size=5, version_2_with_negative=is_version_2
    )
    for is_version_2 in (False, True)
  }


@pytest.fixture
def eagerly():
  """Without tracing, for tests that need many readers."""
  tf.config.run_functions_eagerly(True)
  yield
  tf.config.run_functions_eagerly(False)


def answer(reader, questions, contexts):
  """What the reader returns, as NumPy arrays, texts as bytes."""
  questions, contexts = (
    tf.constant(x, tf.string, shape=[len(x)]) for x in (questions, contexts)
  )
  found = reader.answer(questions, contexts)
  return {name: x.numpy() for name, x in found.items()}


# Windows ----------------------------------------------------------------------


def assert_windows_equal(found, windows):
  longest = int(windows.sequences.lengths.max(initial=0))
  batch = windows.sequences.pad(np.arange(len(windows)), longest)
  for name, values in batch.items():
    np.testing.assert_array_equal(found.features[name], values, name)
    assert found.features[name].dtype == tf.int32
  for name in ("example_index", "doc_span_index", "first_doc_token"):
    np.testing.assert_array_equal(
      getattr(found, name), getattr(windows, name), name
    )
  for name in ("word_index", "char_starts", "char_ends", "is_max_context"):
    ragged = getattr(found, name)
    np.testing.assert_array_equal(ragged.row_splits, windows.word_starts)
    np.testing.assert_array_equal(ragged.values, getattr(windows, name), name)


@pytest.mark.parametrize("make_texts", [plain_texts, odd_texts])
def test_windows(case, readers, make_texts):
  contexts = make_texts(200)
  questions = make_texts(200, longest=14, seed=1)
  _, windows = case.windows(questions, contexts)
  # Several windows, questions cut off, and contexts without one.
  assert len(windows) > 300
  assert windows.first_doc_token.max() == WINDOWING["max_query_length"] + 2
  assert set(range(200)) - set(windows.example_index.tolist())
  assert_windows_equal(readers[False].windows(questions, contexts), windows)


@pytest.mark.parametrize("doc_stride", [1, 2, 3, 7, 30, 100])
@pytest.mark.parametrize("max_seq_length", [12, 15, 33])
def test_windows_of_any_size(case, eagerly, max_seq_length, doc_stride):
  contexts = plain_texts(20, seed=doc_stride)
  questions = plain_texts(20, longest=9)
  windowing = {"max_seq_length": max_seq_length, "doc_stride": doc_stride}
  # Its functions do not keep it.
  reader = case.reader(windowing)
  found = reader.windows(questions, contexts)
  _, windows = case.windows(questions, contexts, **windowing)
  assert_windows_equal(found, windows)


def test_no_room_is_refused():
  with pytest.raises(ValueError, match="must be 68 or more"):
    graph_squad.WindowingConfig(max_seq_length=67)
  graph_squad.WindowingConfig(max_seq_length=68)


@pytest.mark.parametrize("name", ["doc_stride", "windows_at_once"])
def test_sizes_are_positive(name):
  with pytest.raises(ValueError, match=f"--{name}=0: pass 1 or more"):
    graph_squad.WindowingConfig(**{name: 0})


# Answers against upstream's loops ---------------------------------------------


def expected_entries(examples, windows, logits, inv_vocab, config):
  """Yields each question's ranked [(text, start, end, score)], and its null.

  The algorithm of upstream, but for the text.
  """
  by_example = reference_squad.features_by_example(windows, inv_vocab)
  logits = np.float64(logits).tolist()
  for index, example in enumerate(examples):
    features = [feature for _, feature in by_example[index]]
    of_windows = [(logits[0][x], logits[1][x]) for x, _ in by_example[index]]
    spans, null = reference_squad.find_spans(features, of_windows, config)
    entries = {}
    for span in spans:
      score = span.start_logit + span.end_logit
      if not span.start:
        entries.setdefault("", ("", -1, -1, score))
        continue
      number = by_example[index][span.feature][0]
      shift = windows.word_starts[number] - windows.first_doc_token[number]
      start = int(windows.char_starts[shift + span.start])
      end = int(windows.char_ends[shift + span.end])
      text = example.context[start:end]
      key = " ".join(squad_data.split_words(text)[0])
      entries.setdefault(key, (text, start, end, score))
    ranked = list(entries.values())
    best = ranked[: config.n_best_size]
    if config.version_2_with_negative and all(text for text, *_ in best):
      best.append(("", -1, -1, null.start_logit + null.end_logit))
    yield best or [("", -1, -1, 0.0)]


def assert_as_upstream(case, found, questions, contexts, windowing, config):
  examples, windows = case.windows(questions, contexts, **windowing)
  entries = expected_entries(
    examples, windows, case.logits(windows), case.tokenizer.inv_vocab, config
  )
  rows = {name: values for name, values in found.items() if values.ndim == 2}
  width = config.n_best_size + int(config.version_2_with_negative)
  assert found["answers"].shape == (len(questions), width)
  for number, best in enumerate(entries):
    texts, starts, ends, scores = zip(*best, strict=True)
    count = len(best)
    assert found["num_answers"][number] == count
    row = {name: values[number].tolist() for name, values in rows.items()}
    assert [x.decode() for x in row["answers"][:count]] == list(texts)
    assert row["starts"][:count] == list(starts)
    assert row["ends"][:count] == list(ends)
    assert row["scores"][:count] == np.float32(scores).tolist()
    assert row["probabilities"][:count] == pytest.approx(
      reference_squad.softmax(scores), rel=RELATIVE_TOLERANCE, abs=1e-30
    )
    assert set(row["answers"][count:]) <= {b""}
    assert set(row["starts"][count:] + row["ends"][count:]) <= {-1}
    assert set(row["scores"][count:] + row["probabilities"][count:]) <= {0.0}


@pytest.mark.parametrize("is_version_2", [False, True])
@pytest.mark.parametrize("make_texts", [plain_texts, odd_texts])
def test_all_answers(case, readers, make_texts, is_version_2):
  contexts = make_texts(60, seed=2)
  questions = make_texts(60, longest=14, seed=3)
  found = answer(readers[is_version_2], questions, contexts)
  config = squad_decoding.DecodingConfig(
    n_best_size=5, version_2_with_negative=is_version_2
  )
  assert_as_upstream(case, found, questions, contexts, {}, config)


@pytest.mark.parametrize("is_version_2", [False, True])
@pytest.mark.parametrize("levels", [1, 2, 4, None])
@pytest.mark.parametrize(
  ("n_best_size", "max_answer_length"), [(1, 30), (3, 1), (20, 4), (50, 200)]
)
def test_ties_and_sizes(  # noqa: PLR0913
  vocab_file, eagerly, n_best_size, max_answer_length, levels, is_version_2
):
  contexts, questions = odd_texts(12, seed=4), odd_texts(12, longest=6, seed=5)
  case = Case(vocab_file)
  case.model = Lookup(len(case.tokenizer.vocab), levels=levels)
  flags = {
    "n_best_size": n_best_size,
    "max_answer_length": max_answer_length,
    "version_2_with_negative": is_version_2,
  }
  windowing = {"windows_at_once": 7}
  found = answer(case.reader(windowing, **flags), questions, contexts)
  config = squad_decoding.DecodingConfig(**flags)
  assert_as_upstream(case, found, questions, contexts, windowing, config)


# Answers against squad_decoding -----------------------------------------------


def assert_as_decoded(found, decoded):
  """All numbers, and texts, where each is what its tokens were made of."""
  for row, (qas_id, entries) in enumerate(decoded.nbest.items()):
    count = len(entries)
    texts = [entry["text"] for entry in entries]
    if texts == [squad_decoding.NO_SPAN]:
      texts = [""]
    assert [x.decode() for x in found["answers"][row][:count]] == texts
    assert found["num_answers"][row] == count
    for name, values in (
      ("scores", [x["start_logit"] + x["end_logit"] for x in entries]),
      ("probabilities", [x["probability"] for x in entries]),
    ):
      assert found[name][row][:count].tolist() == pytest.approx(
        values, rel=RELATIVE_TOLERANCE, abs=1e-30
      )
    assert_predicted(found, row, decoded, qas_id)
    best = decoded.best[qas_id]
    assert found["start"][row] == (-1 if best.start is None else best.start)
    assert found["end"][row] == (-1 if best.end is None else best.end)
    assert found["probability"][row] == pytest.approx(
      best.probability, rel=RELATIVE_TOLERANCE
    )


def assert_predicted(found, row, decoded, qas_id, tolerance=RELATIVE_TOLERANCE):
  """What is the same wherever texts are: score, null odds, if there is any."""
  best = decoded.best[qas_id]
  assert found["score"][row] == pytest.approx(
    best.score, rel=tolerance, abs=tolerance
  )
  assert (found["start"][row] < 0) == (best.start is None)
  if decoded.null_odds:
    assert found["null_odds"][row] == pytest.approx(
      decoded.null_odds[qas_id], rel=tolerance, abs=tolerance
    )


@pytest.mark.parametrize("is_version_2", [False, True])
def test_plain_texts_as_decoded(case, readers, is_version_2):
  contexts = plain_texts(200, seed=6)
  questions = plain_texts(200, longest=14, seed=7)
  # "zq" is unknown: where a window cuts an answer's word upstream takes all of
  # it. That is a difference of `test_odd_texts_as_decoded`.
  found = answer(readers[is_version_2], questions, contexts)
  decoded = case.decode(
    questions, contexts, n_best_size=5, version_2_with_negative=is_version_2
  )
  assert_as_decoded(found, decoded)
  assert (found["start"] == -1).any()
  assert (found["start"] >= 0).any()


@pytest.mark.parametrize("is_version_2", [False, True])
def test_odd_texts_as_decoded(case, readers, is_version_2):
  contexts = odd_texts(300, seed=8)
  questions = odd_texts(300, longest=14, seed=9)
  found = answer(readers[is_version_2], questions, contexts)
  decoded = case.decode(
    questions, contexts, n_best_size=5, version_2_with_negative=is_version_2
  )
  num_wider = 0
  for row, qas_id in enumerate(decoded.best):
    assert_predicted(found, row, decoded, qas_id)
    best = decoded.best[qas_id]
    start, end = int(found["start"][row]), int(found["end"][row])
    text = contexts[row][max(start, 0) : max(end, 0)]
    assert found["answer"][row].decode() == text
    if best.start is not None:
      # All of the words that the tokens are of, where those are not found.
      assert best.start <= start < end <= best.end
      num_wider += (best.start, best.end) != (start, end)
  assert 0 < num_wider < len(contexts)


@pytest.mark.parametrize("threshold", [-math.inf, -3.0, 3.0, math.inf])
def test_null_threshold(case, eagerly, threshold):
  contexts, questions = plain_texts(20, seed=10), [""] * 20
  flags = {
    "n_best_size": 5,
    "version_2_with_negative": True,
    "null_score_diff_threshold": threshold,
  }
  found = answer(case.reader(**flags), questions, contexts)
  assert_as_decoded(found, case.decode(questions, contexts, **flags))


# Unusual texts ----------------------------------------------------------------


@pytest.mark.parametrize("is_version_2", [False, True])
def test_no_token(readers, is_version_2):
  contexts = ["", " \t\n", "\u200b", b"\xff", "the bridge"]
  found = answer(readers[is_version_2], ["the"] * 5, contexts)
  assert found["answer"][:4].tolist() == [b""] * 4
  assert found["start"][:4].tolist() == found["end"][:4].tolist() == [-1] * 4
  assert found["probability"][:4].tolist() == [1.0] * 4
  assert found["score"][:4].tolist() == [0.0] * 4
  assert found["num_answers"][:4].tolist() == [1] * 4
  assert found["num_answers"][4] > 1
  if is_version_2:
    assert found["null_odds"][:4].tolist() == [1e6] * 4


@pytest.mark.parametrize("is_version_2", [False, True])
def test_empty_batch(readers, is_version_2):
  found = answer(readers[is_version_2], [], [])
  for name, values in found.items():
    assert len(values) == 0, name
  full = answer(readers[is_version_2], [""], ["the bridge"])
  for name, values in found.items():
    assert values.dtype == full[name].dtype, name
    assert values.shape[1:] == full[name].shape[1:], name


def test_only_windows_without_tokens(readers):
  found = answer(readers[True], ["", "the"], ["", " "])
  assert found["answer"].tolist() == [b"", b""]


def test_invalid_utf8_does_not_count(case, readers):
  clean = odd_texts(50, seed=11)
  rng = np.random.default_rng(12)
  contexts = []
  for text in clean:
    parts = list(text)
    for place in rng.integers(len(parts) + 1, size=5).tolist():
      parts.insert(place, "\udcff")
    dirty = "".join(parts).encode("utf-8", "surrogateescape")
    assert dirty.decode("utf-8", "ignore") == text
    contexts.append(dirty)
  questions = ["the bridge"] * 50
  # They may join what they part: there is a character of two bytes.
  contexts.append(b"the \xc3\xff\xa9 \xe4\xb8 bridge \xed\xa0\x80 old")
  clean.append("the   bridge  old")
  questions.append("the")
  config = squad_decoding.DecodingConfig(n_best_size=5)
  found = answer(readers[False], questions, contexts)
  assert_as_upstream(case, found, questions, clean, {}, config)


def test_every_character_comes_back(case, eagerly):
  """Each code point of a text is in the answer that is all of the text."""
  codes = [*range(0x10, 0x110000, 97), 0, 9, 10, 0xFFFE, 0xFFFF, 0x10FFFF]
  chars = "".join(chr(x) for x in codes if not 0xD800 <= x < 0xE000)
  texts = [f"a{chars[x : x + 50]}b" for x in range(0, len(chars), 50)]
  windowing = {"max_seq_length": 200, "doc_stride": 150}
  reader = case.reader(windowing, n_best_size=200, max_answer_length=200)
  found = answer(reader, [""] * len(texts), texts)
  for number, text in enumerate(texts):
    places = zip(found["starts"][number], found["ends"][number], strict=True)
    cut = [text[x:y] for x, y in places if x >= 0]
    count = int(found["num_answers"][number])
    assert [x.decode() for x in found["answers"][number][:count]] == cut


def test_long_context(case, readers):
  text = " ".join(plain_texts(400, seed=13))
  assert len(text.split()) > 10000
  questions, contexts = ["the old bridge", "who"], [text, text[::-1]]
  found = answer(readers[False], questions, contexts)
  decoded = case.decode(questions[:1], contexts[:1], n_best_size=5)
  first = {name: values[:1] for name, values in found.items()}
  assert_as_decoded(first, decoded)


def test_pairs_are_needed(readers):
  with pytest.raises(tf.errors.InvalidArgumentError, match="needs a context"):
    answer(readers[False], ["who"], ["the bridge", "a bridge"])


def test_logits_must_be_finite(vocab_file, eagerly):
  case = Case(vocab_file)
  case.model.table.assign(case.model.table * np.nan)
  with pytest.raises(tf.errors.InvalidArgumentError, match="model is broken"):
    answer(case.reader(), ["who"], ["the bridge"])


def test_one_trace_serves_all_shapes(readers):
  for count, longest in ((1, 3), (5, 50), (30, 200)):
    answer(readers[False], [""] * count, plain_texts(count, longest=longest))
  assert readers[False].answer.experimental_get_tracing_count() == 1


# A model ----------------------------------------------------------------------

# Runs where none of our modules may be used.
ASK_EXPORT = """
import json, sys
import tensorflow as tf
import tensorflow_text
folder, questions, contexts = json.load(sys.stdin)
reader = tf.saved_model.load(folder)
found = reader.answer(tf.constant(questions), tf.constant(contexts))
found["answer"] = tf.strings.unicode_decode(found["answer"], "UTF-8").to_list()
del found["answers"]
assert not {"graph_squad", "tokenization", "modeling"} & set(sys.modules)
numbers = {name: getattr(x, "numpy", lambda: x)() for name, x in found.items()}
print(json.dumps({name: getattr(x, "tolist", lambda: x)() for name, x in
                  numbers.items()}))
"""


class SmallBert(tf.Module):
  """BertSpanLabeler of random weights, large enough for clear differences."""

  def __init__(self, vocab_size):
    super().__init__()
    self.model = modeling.BertSpanLabeler(
      modeling.BertConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
      )
    )
    rng = np.random.default_rng(14)
    for weight in self.model.weights:
      weight.assign(rng.normal(0, 0.5, weight.shape))
    self.tracked = [weight.value for weight in self.model.weights]

  def __call__(self, features):
    outputs = self.model(features, training=False)
    return outputs["start_logits"], outputs["end_logits"]


@pytest.mark.slow
def test_saved_model_in_a_fresh_process(vocab_file, tmp_path):
  case = Case(vocab_file)
  case.model = SmallBert(len(case.tokenizer.vocab))
  flags = {"n_best_size": 5, "version_2_with_negative": True}
  reader = case.reader({"windows_at_once": 7}, **flags)
  contexts, questions = odd_texts(40, seed=15), plain_texts(40, longest=9)
  here = answer(reader, questions, contexts)
  root = tf.Module()
  root.answer, root.reader = reader.answer, reader
  tf.saved_model.save(root, str(tmp_path / "export"))
  result = subprocess.run(
    [sys.executable, "-I", "-c", ASK_EXPORT],
    input=json.dumps([str(tmp_path / "export"), questions, contexts]),
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  there = json.loads(result.stdout.splitlines()[-1])
  for name in ("start", "end", "starts", "ends", "num_answers"):
    assert there[name] == here[name].tolist(), name
  for name in ("score", "scores", "probabilities", "null_odds"):
    np.testing.assert_allclose(
      there[name], here[name], rtol=MODEL_TOLERANCE, atol=MODEL_TOLERANCE
    )
  texts = ["".join(map(chr, codes)) for codes in there["answer"]]
  assert texts == [x.decode() for x in here["answer"]]
  # A model's logits hardly depend on how windows are padded and batched.
  decoded = case.decode(questions, contexts, **flags)
  for row, qas_id in enumerate(decoded.best):
    assert_predicted(here, row, decoded, qas_id, MODEL_TOLERANCE)


# SQuAD ------------------------------------------------------------------------


class Given(tf.Module):
  """Logits made elsewhere, for all windows at once."""

  def __init__(self, logits):
    super().__init__()
    self.logits = tf.Variable(logits)

  def __call__(self, features):
    return tf.unstack(self.logits)


def answer_logits(examples, windows, seed):
  """Noise, and the annotated answers far above it."""
  rng = np.random.default_rng(seed)
  longest = int(windows.sequences.lengths.max())
  logits = rng.normal(0, 2, [2, len(windows), longest]).astype(np.float32)
  for number, example_index in enumerate(windows.example_index.tolist()):
    example = examples[example_index]
    begin, end = windows.word_starts[number : number + 2]
    start = example.context.find(example.answers[0])
    stop = start + len(example.answers[0])
    is_inside = windows.char_ends[begin:end] > start
    is_inside &= windows.char_starts[begin:end] < stop
    tokens = np.flatnonzero(is_inside) + windows.first_doc_token[number]
    if tokens.size:
      logits[0, number, tokens[0]] += 12
      logits[1, number, tokens[-1]] += 12
  return logits


@pytest.fixture(scope="session")
def squad():
  """Every 30th question of SQuAD's development set, and its tokenizers."""
  path = SHARED / "data" / "squad" / "dev-v1.1.json"
  vocab = SHARED / "data" / "vocab" / "uncased_vocab.txt"
  if not (path.is_file() and vocab.is_file()):
    pytest.skip("SQuAD's data and vocabulary are not beside this checkout")
  examples = squad_data.read_squad_examples(str(path), is_training=False)[::30]
  return Case(vocab), examples


def same_text(ours, theirs):
  return " ".join(squad_data.split_words(ours)[0]) == theirs


@pytest.mark.parametrize("kind", ["lookup", "answers"])
def test_squad(squad, eagerly, kind):
  case, examples = squad
  windowing = {"max_seq_length": 384, "doc_stride": 128, "max_query_length": 64}
  windows = squad_data.make_windows(
    examples, case.tokenizer, **windowing, is_training=False
  )
  logits = case.logits(windows)
  if kind == "answers":
    logits = answer_logits(examples, windows, seed=16)
    case.model = Given(logits)
    longest = logits.shape[2]
    is_padding = np.arange(longest) >= windows.sequences.lengths[:, np.newaxis]
    logits = np.where(is_padding, -np.inf, logits)
  reader = case.reader({**windowing, "windows_at_once": len(windows)})
  questions = [x.question_text for x in examples]
  contexts = [x.context for x in examples]
  assert_windows_equal(reader.windows(questions, contexts), windows)
  found = answer(reader, questions, contexts)
  decoded = squad_decoding.decode(
    examples,
    windows,
    *logits,
    case.tokenizer,
    squad_decoding.DecodingConfig(),
  )
  different = []
  for row, (qas_id, text) in enumerate(decoded.predictions.items()):
    assert_predicted(found, row, decoded, qas_id)
    ours = found["answer"][row].decode()
    if not same_text(ours, text):
      best = decoded.best[qas_id]
      assert best.start <= found["start"][row] < found["end"][row] <= best.end
      different.append((ours, text))
    elif ours == text and contexts[row].count(text) == 1:
      assert contexts[row].index(text) == found["start"][row]
  print(kind, len(examples), "questions,", len(different), "texts differ")
  print(*different[:40], sep="\n")
  assert len(different) < len(examples) / 100
