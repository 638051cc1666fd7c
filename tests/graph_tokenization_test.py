"""The tokenizer in the graph equals `tokenization.py`, offsets and packing too.

Most tests compare what Python and the graph make of the same texts. What Python
makes of them is compared with the original in tokenization_test.py.
"""

import functools
import itertools
import json
import pathlib
import random
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import tokenization
import tokenization_test
from bert_keras3.data import sequences as sequences_module
from bert_keras3.serving import graph_tokenization
from bert_keras3.tasks import squad_data
from tokenization_test import around_sigma
from tokenization_test import in_contexts

pytest.importorskip("tensorflow_text", reason="has no wheels for Windows")

OWN = pathlib.Path(__file__).parent / "testdata" / "tokenization"
VOCABS = pathlib.Path(__file__).parent.parent.parent / "shared/data/vocab"
SURROGATES = range(0xD800, 0xE000)
# The words around it differ by one character each.
BATCH = 1 << 15


@pytest.fixture(params=["lower", "cased"])
def lower(request):
  return request.param == "lower"


@pytest.fixture(params=["uncased", "cased", "chinese", "multi_cased"])
def published_vocab(request):
  """A vocabulary of the original's models, kept apart from the project."""
  path = VOCABS / f"{request.param}_vocab.txt"
  if not path.is_file():
    pytest.skip("the development data ../shared is not there")
  return path


@functools.cache
def both(vocab, do_lower_case):
  """(tokenizer in Python, tokenizer in the graph)."""
  return (
    tokenization.FullTokenizer(vocab, do_lower_case),
    graph_tokenization.GraphTokenizer(vocab, do_lower_case),
  )


def write_vocab(folder, tokens):
  path = folder / "vocab.txt"
  path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
  return path


def batches(texts):
  texts = iter(texts)
  while batch := list(itertools.islice(texts, BATCH)):
    yield batch


def assert_same_ids(python, graph, texts):
  for batch in batches(texts):
    for text, ids in zip(batch, graph.tokenize(batch).to_list(), strict=True):
      assert ids == python.encode(text), ascii(text)


def words_in_graph(graph, texts):
  """The normalised words of texts without spaces, known to WordPiece or not."""
  text = graph._normalize(tf.constant(texts))
  chars = tf.RaggedTensor.from_row_splits(text.chars, text.char_splits)
  made = tf.strings.unicode_encode(chars, "UTF-8").numpy()
  return [x.decode().split(" ") for x in made]


def assert_same_words(python, graph, texts):
  for batch in batches(text.replace(" ", "\t") for text in texts):
    words_of_batch = words_in_graph(graph, batch)
    for text, words in zip(batch, words_of_batch, strict=True):
      expected = python.basic_tokenizer.tokenize(text)
      assert [x for x in words if x] == expected, ascii(text)


def align_in_python(python, context):
  """What `tokenize_with_offsets` is to give, by squad_data.py."""
  rows = {"ids": [], "starts": [], "ends": [], "words": []}
  found = zip(*squad_data.split_words(context), strict=True)
  for number, (word, offset) in enumerate(found):
    ids, starts, ends = squad_data.align_pieces(word, python)
    rows["ids"] += ids
    rows["starts"] += [offset + x for x in starts]
    rows["ends"] += [offset + x for x in ends]
    rows["words"] += [number] * len(ids)
  return rows


def assert_same_offsets(python, graph, texts):
  for batch in batches(texts):
    result = graph.tokenize_with_offsets(batch)
    result = {name: values.to_list() for name, values in result.items()}
    for number, text in enumerate(batch):
      expected = align_in_python(python, tokenization.convert_to_unicode(text))
      row = {name: values[number] for name, values in result.items()}
      assert row == expected, ascii(text)


def random_texts(seed, count):
  """Mixed scripts, controls and marks; some words are about 200 characters."""
  rng = random.Random(seed)
  for text in tokenization_test.random_texts(seed, count):
    if rng.random() < 0.02:
      text += rng.choice("xX1\u03a3\xe9\U0001d400") * rng.randrange(195, 206)
    # No UTF-8 has surrogates.
    yield text.encode("utf-8", "ignore").decode()


def golden_texts(path):
  for row in tokenization_test.rows(path):
    yield row["text"].encode("utf-8", "ignore").decode()


# Goldens


def test_texts_of_the_original(lower):
  vocab = OWN / "vocab.txt"
  texts = list(golden_texts(OWN / "tokenization.jsonl"))
  assert len(texts) > 70
  assert_same_ids(*both(vocab, lower), texts)
  assert_same_offsets(*both(vocab, lower), texts)


def test_texts_of_the_original_with_published_vocabularies(
  goldens, published_vocab, lower
):
  texts = list(golden_texts(goldens / "tokenization" / "tokenization.jsonl"))
  assert_same_ids(*both(published_vocab, lower), texts)
  assert_same_offsets(*both(published_vocab, lower), texts)


def test_ids_of_the_original(lower):
  # Without tokenization.py between.
  graph = both(OWN / "vocab.txt", lower)[1]
  for row in tokenization_test.rows(OWN / "tokenization.jsonl"):
    differs = tokenization_test.PYTHON in row["differs_on_python"]
    if not differs and not set(map(ord, row["text"])) & set(SURROGATES):
      expected = row["lower" if lower else "cased"]["ids"]
      assert graph.tokenize([row["text"]]).to_list() == [expected]


def test_bytes_of_the_original(lower):
  python, graph = both(OWN / "vocab.txt", lower)
  for row in tokenization_test.rows(OWN / "bytes.jsonl"):
    text = bytes.fromhex(row["bytes_hex"])
    expected = row["lower" if lower else "cased"]["ids"]
    assert graph.tokenize([text]).to_list() == [expected], text
    assert_same_offsets(python, graph, [text])


# Every code point


def code_points():
  return itertools.filterfalse(
    SURROGATES.__contains__, range(sys.maxunicode + 1)
  )


def around_marks(codes):
  """Each character where NFD would carry one mark past another."""
  for char in map(chr, codes):
    yield f"\u302e{char}\U0001d165"


def test_common_code_points(lower):
  codes = [x for x in range(0x3400) if x not in SURROGATES]
  codes += range(0xF900, 0x11000)
  for contexts in (in_contexts, around_sigma, around_marks):
    assert_same_words(*both(OWN / "vocab.txt", lower), contexts(codes))


@pytest.mark.slow
@pytest.mark.parametrize("contexts", [in_contexts, around_sigma, around_marks])
def test_all_code_points(lower, contexts):
  assert_same_words(*both(OWN / "vocab.txt", lower), contexts(code_points()))


@pytest.mark.slow
def test_all_code_points_between_letters(published_vocab, lower):
  texts = (f"a{chr(x)}b a {chr(x)}c" for x in code_points())
  assert_same_ids(*both(published_vocab, lower), texts)


# Neighbours


def test_final_sigma():
  # Cased letters, case-ignorable marks, marks that are deleted, separators.
  neighbours = "\u03a3\u03b1A'.\u0301\u00ad\x00\x0b\u4e2d 1"
  texts = list(map("".join, itertools.product(neighbours, repeat=4)))
  python, graph = both(OWN / "vocab.txt", True)
  assert_same_words(python, graph, texts)
  assert words_in_graph(graph, ["\u039f\u03a3", "\u039f\u03a3\u0391"]) == [
    ["\u03bf\u03c2", ""],
    ["\u03bf\u03c3\u03b1", ""],
  ]


def test_order_of_combining_marks():
  # Classes 9, 216, 224 and 6, marks that stay; 230 and 0, marks that go.
  marks = "a\u1baa\U0001d165\u302e\U00016ff0\u0301\u0e31 "
  texts = list(map("".join, itertools.product(marks, repeat=4)))
  python, graph = both(OWN / "vocab.txt", True)
  assert_same_words(python, graph, texts)
  assert_same_offsets(python, graph, texts)


def test_neighbours_are_those_of_the_same_text():
  python, graph = both(OWN / "vocab.txt", True)
  # Not final: nothing precedes it in its text. And no mark of another text.
  for texts in (["a", "\u03a3"], ["A\u03a3", "b"], ["\U0001d165", "\u1baa"]):
    assert_same_words(python, graph, texts)
    assert_same_offsets(python, graph, texts)


def test_random_texts(lower):
  texts = list(random_texts(1, 5000))
  assert_same_words(*both(OWN / "vocab.txt", lower), texts)
  assert_same_ids(*both(OWN / "vocab.txt", lower), texts)


@pytest.mark.slow
def test_random_texts_with_published_vocabularies(published_vocab, lower):
  texts = random_texts(2, 100_000)
  assert_same_ids(*both(published_vocab, lower), texts)


# Words


@pytest.mark.parametrize("letter", ["x", "\xe9", "\u10d0", "\U0001d400"])
def test_words_of_200_characters(tmp_path, letter):
  # Two, three and four bytes each: none of these words is too long in bytes.
  vocab = write_vocab(tmp_path, ["[UNK]", letter, "##" + letter, "b"])
  python, graph = both(vocab, False)
  texts = [f"b {letter * n} b" for n in (199, 200, 201, 801)]
  assert_same_ids(python, graph, texts)
  assert_same_offsets(python, graph, texts)
  assert graph.tokenize(texts).row_lengths().numpy().tolist() == [
    201,
    202,
    3,
    3,
  ]


def test_number_signs(tmp_path):
  # "##" is what WordPiece writes before a piece within a word.
  vocab = write_vocab(tmp_path, ["[UNK]", "##a", "a", "###", "b", "##b"])
  texts = ["#", "##", "##a", "a#", "ab#ab", "###", "[UNK]", "b##a", "#a ##"]
  assert_same_ids(*both(vocab, True), texts)


def test_greedy_pieces(tmp_path):
  # Longest first, without looking back, whatever is left.
  tokens = "a ab abc ##b ##bc ##c ##cd ##d ##dd ##bcdd [UNK]".split()
  vocab = write_vocab(tmp_path, tokens)
  words = itertools.chain.from_iterable(
    map("".join, itertools.product("abcd", repeat=n)) for n in range(1, 8)
  )
  assert_same_ids(*both(vocab, True), words)


# Invalid bytes


def decode_in_graph(graph, texts):
  code_points, splits = graph.decode(tf.constant(texts))
  # A space follows every text.
  return [
    bytes(code_points[a : b - 1].astype("<u4")).decode("utf-32-le")
    for code_points in [code_points.numpy()]
    for a, b in itertools.pairwise(splits.numpy())
  ]


def assert_same_decoding(texts):
  graph = both(OWN / "vocab.txt", False)[1]
  for text, decoded in zip(texts, decode_in_graph(graph, texts), strict=True):
    assert decoded == tokenization.convert_to_unicode(text), text


def test_invalid_bytes():
  # First and last bytes of every kind that UTF-8 knows or rules out.
  edges = bytes.fromhex(
    "41 80 8f 90 9f a0 bf c0 c1 c2 df e0 ec ed ee ef f0 f1 f3 f4 f5 ff"
  )
  assert_same_decoding(list(map(bytes, itertools.product(edges, repeat=3))))
  rng = random.Random(3)
  texts = [bytes(rng.choices(edges, k=rng.randrange(12))) for _ in range(20000)]
  assert_same_decoding(texts)
  python, graph = both(OWN / "vocab.txt", True)
  assert_same_ids(python, graph, texts)
  assert_same_offsets(python, graph, texts[:2000])


@pytest.mark.parametrize(
  "text",
  [
    b"",
    b"\xff",
    b"\xe2\x82",
    b"a\xc0\xafb",
    b"\xed\xa0\x80a",
    b"\xf0\x9f\x98",
    b"\xef\xbb\xbfa\xef\xbf\xbd",
    b"\xf4\x90\x80\x80",
  ],
)
def test_a_short_text_alone(text):
  assert_same_decoding([text])
  python, graph = both(OWN / "vocab.txt", True)
  assert_same_ids(python, graph, [text])
  assert_same_offsets(python, graph, [text])


# Offsets


def test_offsets(lower):
  texts = list(random_texts(4, 2000))
  assert_same_offsets(*both(OWN / "vocab.txt", lower), texts)


@pytest.mark.slow
def test_many_offsets(published_vocab, lower):
  assert_same_offsets(*both(published_vocab, lower), random_texts(5, 20_000))


def test_offsets_at_separators():
  # Spaces to SQuAD, spaces to BERT, neither, and marks that lose their letter.
  parts = [
    "a",
    " ",
    "\t",
    "\u202f",
    "\xa0",
    "\u2028",
    "\u0301",
    "\x00",
    "\uac01",
  ]
  texts = list(map("".join, itertools.product(parts, repeat=5)))
  assert_same_offsets(*both(OWN / "vocab.txt", True), texts)


def test_offsets_by_hand(tmp_path):
  vocab = write_vocab(tmp_path, ["[UNK]", "ca", "##fe", "!", "bar"])
  graph = graph_tokenization.GraphTokenizer(vocab)
  result = graph.tokenize_with_offsets(["cafe\u0301! \n bar", "", "x Bar"])
  assert {name: values.to_list() for name, values in result.items()} == {
    "ids": [[1, 2, 3, 4], [], [0, 4]],
    "starts": [[0, 2, 5, 9], [], [0, 2]],
    "ends": [[2, 5, 6, 12], [], [1, 5]],
    "words": [[0, 0, 0, 1], [], [0, 1]],
  }
  assert {values.dtype for values in result.values()} == {tf.int32}


# Special tokens

SPECIAL = ["[MASK]", "[SEP]", "[unused1]", "[E-1]", "[\xc9]", f"[{'x' * 210}]"]
# What stands beside and within them, and is not them.
NO_SPECIAL = (
  *("[", "]", "[]", "[mask]", "[MASK", "MASK]", "[ MASK ]", "[foo]", "[\xe9]"),
  *("a", "Of", " ", "  ", "\n", "\u2028", "\xa0", "\x0b", "\x00", "\ufffe"),
  *("\u03a3", "\u0301", "\u302e", "\U0001d165", "\u4e2d", ".", "[E\u03011]"),
)
INVALID = (b"\xff", b"\xe2\x82", b"\xed\xa0\x80", b"\xc0")


@functools.cache
def both_with_special_tokens(do_lower_case):
  path = OWN / "vocab.txt"
  vocab = tokenization.load_vocab(path)
  for token in SPECIAL:
    vocab.setdefault(token, len(vocab))
  python = tokenization.FullTokenizer(path, do_lower_case, "keep")
  # As one of a file with these lines would be.
  python.vocab, python.special_tokens = vocab, SPECIAL
  python._special_tokens = re.compile(f"({'|'.join(map(re.escape, SPECIAL))})")
  return python, graph_tokenization.GraphTokenizer(
    vocab, do_lower_case, python.special_tokens
  )


def random_special_texts(seed, count):
  """Special tokens among all that may disturb them, as UTF-8 and nearly so."""
  rng = random.Random(seed)
  plain = random_texts(seed, count)
  for text in plain:
    parts = [x.encode() for x in rng.choices(SPECIAL + [*NO_SPECIAL], k=8)]
    parts.append(text.encode())
    rng.shuffle(parts)
    whole = b"".join(parts)
    for _ in range(rng.randrange(3)):
      place = rng.randrange(len(whole) + 1)
      whole = whole[:place] + rng.choice(INVALID) + whole[place:]
    yield whole


def test_special_tokens_are_kept_as_in_python(lower):
  python, graph = both_with_special_tokens(lower)
  texts = list(random_special_texts(6, 3000))
  assert_same_ids(python, graph, texts)
  kept = [x for text in texts for x in python.tokenize(text) if x in SPECIAL]
  assert set(kept) == set(SPECIAL)


def test_special_tokens_by_hand(tmp_path):
  tokens = ["[UNK]", "[MASK]", "[", "]", "mask", "##s", "a", "[X]"]
  vocab = write_vocab(tmp_path, tokens)
  python = tokenization.FullTokenizer(vocab, True, "keep")
  texts = ["a[MASK]s [mask]", b"[MA\xffSK]", "[[MASK]]", "[MASK][X]A", ""]
  expected = [[6, 1, 0, 2, 4, 3], [1], [2, 1, 3], [1, 7, 6], []]
  graph = graph_tokenization.GraphTokenizer(
    vocab, special_tokens=python.special_tokens
  )
  assert graph.tokenize(texts).to_list() == expected
  one = graph_tokenization.GraphTokenizer(vocab, special_tokens=["[MASK]"])
  assert one.tokenize(["[MASK][X]"]).to_list() == [[1, 2, 0, 3]]
  none = graph_tokenization.GraphTokenizer(vocab)
  assert none.tokenize(["[MASK]"]).to_list() == [[2, 4, 3]]


@pytest.mark.parametrize("token", ["[X]", "a"])
def test_a_special_token_is_one_of_the_vocabulary(tmp_path, token):
  vocab = write_vocab(tmp_path, ["[UNK]", "a"])
  with pytest.raises(ValueError, match="can be no special token"):
    graph_tokenization.GraphTokenizer(vocab, special_tokens=[token])


def test_special_tokens_have_no_offsets(lower):
  graph = both_with_special_tokens(lower)[1]
  with pytest.raises(ValueError, match="special tokens have no offsets"):
    graph.tokenize_with_offsets(["[MASK]"])


def test_special_tokens_cost_nothing_where_there_are_none():
  graph = graph_tokenization.GraphTokenizer(OWN / "vocab.txt")
  function = graph.tokenize.get_concrete_function()
  names = [x.type for x in function.graph.get_operations()]
  assert not [x for x in names if "Regex" in x or "LookupTable" in x]


# Shapes


@pytest.mark.parametrize("texts", [[], [""], ["", ""], [" "], ["\x00", "\n"]])
def test_nothing_to_tokenize(texts):
  graph = both(OWN / "vocab.txt", True)[1]
  texts = tf.constant(texts, tf.string)
  ids = graph.tokenize(texts)
  assert ids.dtype == tf.int32
  assert ids.to_list() == [[]] * len(texts)
  for values in graph.tokenize_with_offsets(texts).values():
    assert values.to_list() == [[]] * len(texts)


def test_within_a_dataset():
  python, graph = both(OWN / "vocab.txt", True)
  texts = ["the quick brown fox", "\u039f\u03a3"] * 3
  dataset = tf.data.Dataset.from_tensor_slices(texts).batch(4)
  found = [ids.to_list() for ids in dataset.map(graph.tokenize)]
  assert sum(found, []) == list(map(python.encode, texts))


# Vocabularies


def test_repeated_tokens_have_the_id_of_their_last_line(tmp_path):
  tokens = ["a", "[UNK]", "##b", "a", "c", "[UNK]", "##b", "c"]
  python, graph = both(write_vocab(tmp_path, tokens), True)
  assert graph.tokenize(["ab c x"]).to_list() == [[3, 6, 7, 5]]
  assert_same_ids(python, graph, ["ab c x", "abb", "cab"])
  from_dict = graph_tokenization.GraphTokenizer(python.vocab)
  assert from_dict.tokenize(["ab c x"]).to_list() == [[3, 6, 7, 5]]


def test_odd_tokens(tmp_path):
  tokens = [
    "",
    "[UNK]",
    "##",
    "two words",
    "a\u2028b",
    "c\x0cd",
    "",
    "a",
    "##\xa0",
  ]
  tokens += [
    "##" + "a" * 300,
    "b" * 300,
    "\u4e2d\u4e2d",
    "A",
    "##\u0301",
    "##b",
  ]
  texts = ["a", "ab", "two words", "a\u2028b", "c\x0cd", "\u4e2d\u4e2d", "A"]
  texts += ["a" * 301, "b" * 300, "a\u0301b", "##"]
  for do_lower_case in (True, False):
    assert_same_ids(*both(write_vocab(tmp_path, tokens), do_lower_case), texts)


def test_quirky_vocabulary_of_the_original(lower):
  texts = ["The quick brown foxing", "the two words cd", "last-no-newline"]
  assert_same_ids(*both(OWN / "quirky_vocab.txt", lower), texts)


def test_vocabulary_without_unk(tmp_path):
  with pytest.raises(ValueError, match=r"^the vocabulary has no \[UNK\]"):
    graph_tokenization.GraphTokenizer({"a": 0})
  with pytest.raises(FileNotFoundError, match="none.txt: no such file"):
    graph_tokenization.GraphTokenizer(tmp_path / "none.txt")


def test_tokens_too_long_for_tensorflow_text():
  vocab = {"[UNK]": 0, "\xe9" * 128: 1, "##" + "x" * 200: 2}
  graph = graph_tokenization.GraphTokenizer(vocab, do_lower_case=False)
  assert graph.tokenize(["\xe9" * 128]).to_list() == [[1]]
  with pytest.raises(ValueError, match="no token of more than 256 bytes"):
    graph_tokenization.GraphTokenizer({**vocab, "\xe9" * 129: 3})


def test_without_tensorflow_text(monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow_text", None)
  with pytest.raises(ImportError, match="pip install tensorflow-text"):
    graph_tokenization.GraphTokenizer({"[UNK]": 0})


# Packing


def pack_in_python(first, second, max_seq_length):
  """Lists of ids to the batch that training sees."""
  packed = []
  for a, b in zip(first, second, strict=True):
    keep = sequences_module.truncate_pair(len(a), len(b), max_seq_length)
    packed.append(
      sequences_module.pack_pair(a[: keep[0]], b[: keep[1]], cls_id=1, sep_id=2)
    )
  sequences = sequences_module.Sequences(packed)
  return sequences.pad(range(len(packed)), max(sequences.lengths, default=0))


def ragged(rows):
  return tf.ragged.constant(rows, tf.int32, ragged_rank=1)


def assert_same_batch(batch, expected):
  assert list(batch) == list(expected)
  for name, values in batch.items():
    assert values.dtype == tf.int32
    np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("max_seq_length", range(3, 20))
def test_packing(max_seq_length):
  counts = [*itertools.product(range(10), repeat=2)]
  first = [list(range(100, 100 + n)) for n, _ in counts]
  second = [list(range(200, 200 + n)) for _, n in counts]
  pack = graph_tokenization.pack
  assert_same_batch(
    pack(ragged(first), ragged(second), max_seq_length, 1, 2),
    pack_in_python(first, second, max_seq_length),
  )
  nothing = [[] for _ in first]
  assert_same_batch(
    pack(ragged(first), None, tf.constant(max_seq_length), 1, 2),
    pack_in_python(first, nothing, max_seq_length),
  )


def test_a_batch_is_as_long_as_its_longest_sequence():
  batch = graph_tokenization.pack(ragged([[5], [6, 7]]), None, 99, 1, 2)
  assert batch["input_ids"].numpy().tolist() == [[1, 5, 2, 0], [1, 6, 7, 2]]
  empty = graph_tokenization.pack(ragged([]), None, 99, 1, 2)
  assert {tuple(x.shape) for x in empty.values()} == {(0, 0)}


# SavedModels

TEXTS = ["\u039f\u03a3 caf\u00e9", "\u4e2d\u6587, a\U0001d165\u302e", "x" * 201]
PAIRS = ["the quick brown fox", "", "jumps!"]
TEXT_SPEC = tf.TensorSpec([None], tf.string)
FRESH_PROCESS = """
import json, sys
import tensorflow as tf, tensorflow_text
model = tf.saved_model.load(sys.argv[1])
texts, pairs = json.loads(sys.argv[2])
batch = model.signatures["serving_default"](
  text=tf.constant(texts), text_pair=tf.constant(pairs))
result = {name: x.numpy().tolist() for name, x in batch.items()}
result["tokens"] = model.tokenizer.tokenize(tf.constant(texts)).to_list()
offsets = model.tokenizer.tokenize_with_offsets(tf.constant(texts))
result["offsets"] = {name: x.to_list() for name, x in offsets.items()}
ours = ("bert_keras3", "tokenization")
result["ours"] = [x for x in sys.modules if x.startswith(ours)]
print(json.dumps(result))
"""


class Served(tf.Module):
  """What an export is made of."""

  def __init__(self, vocab):
    super().__init__()
    self.tokenizer = graph_tokenization.GraphTokenizer(vocab)

  @tf.function(input_signature=[TEXT_SPEC, TEXT_SPEC])
  def serve(self, text, text_pair):
    first = self.tokenizer.tokenize(text)
    second = self.tokenizer.tokenize(text_pair)
    return graph_tokenization.pack(first, second, 12, cls_id=1, sep_id=2)


def test_saved_model_in_a_fresh_process(tmp_path):
  tokens = [*(OWN / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]]
  vocab = write_vocab(tmp_path, tokens)
  python = tokenization.FullTokenizer(vocab)
  served = Served(vocab)
  signatures = {"serving_default": served.serve}
  tf.saved_model.save(served, str(tmp_path / "export"), signatures)
  vocab.unlink()
  arguments = [str(tmp_path / "export"), json.dumps([TEXTS, PAIRS])]
  done = subprocess.run(
    [sys.executable, "-I", "-c", FRESH_PROCESS, *arguments],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  result = json.loads(done.stdout)
  assert result.pop("ours") == []
  assert result.pop("tokens") == list(map(python.encode, TEXTS))
  aligned = [align_in_python(python, text) for text in TEXTS]
  assert result.pop("offsets") == {
    name: [row[name] for row in aligned] for name in aligned[0]
  }
  ids = [list(map(python.encode, texts)) for texts in (TEXTS, PAIRS)]
  assert_same_batch(
    {
      name: tf.constant(result[name])
      for name in ("input_ids", "input_mask", "segment_ids")
    },
    pack_in_python(*ids, 12),
  )
