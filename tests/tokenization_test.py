"""Tokenization equals the original: goldens, and a slow reference elsewhere."""

import itertools
import json
import os
import pathlib
import pickle
import random
import shutil
import subprocess
import sys
import unicodedata

import pytest

import reference_tokenization as reference
import tokenization

OWN = pathlib.Path(__file__).parent / "testdata" / "tokenization"
SHARED = pathlib.Path(__file__).parent.parent.parent / "shared" / "goldens"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# What the original's own test uses, with its expected ids.
SMALL_VOCAB = "[UNK] [CLS] [SEP] want ##want ##ed wa un runn ##ing ,".split()


@pytest.fixture(params=["testdata", "shared"])
def goldens(request):
  """A function from file name to path, for each set of goldens."""
  if request.param == "testdata":
    return OWN.joinpath
  if not SHARED.is_dir():
    pytest.skip("the development data ../shared is not there")
  # The original's vocabulary is kept apart; ours is a small part of it.
  folder = SHARED / "tokenization"
  vocab = SHARED / "vocab" / "vocab.txt"
  return lambda name: vocab if name == "vocab.txt" else folder / name


@pytest.fixture(params=["lower", "cased"])
def casing(request):
  return request.param


def rows(path):
  # Split at "\n" by open(): a row's text may hold what splitlines() splits at.
  with open(path, encoding="utf-8") as lines:
    return [json.loads(line) for line in lines]


def write_vocab(path, tokens=SMALL_VOCAB):
  path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
  return str(path)


class EveryWord(dict):
  """A vocabulary that knows every word, so that ids stand for whole words."""

  def __contains__(self, token):
    return True

  def __missing__(self, token):
    return self.setdefault(token, len(self))


@pytest.fixture
def word_encoder(tmp_path):
  """A function from do_lower_case to a tokenizer with `EveryWord`."""

  def make(do_lower_case):
    tokenizer = tokenization.FullTokenizer(
      write_vocab(tmp_path / "vocab.txt"), do_lower_case
    )
    tokenizer.vocab = EveryWord({"x" * 200: 0})
    tokenizer.wordpiece_tokenizer = tokenization.WordpieceTokenizer(
      tokenizer.vocab
    )
    return tokenizer

  return make


def assert_same_words(tokenizer, texts):
  """Asserts that both ways to ids see the words that the reference sees."""
  basic = tokenizer.basic_tokenizer
  for text in texts:
    words = reference.basic(text, basic.do_lower_case)
    assert basic.tokenize(text) == words, ascii(text)
    ids = [tokenizer.vocab[word] for word in words]
    assert tokenizer.encode(text) == ids, ascii(text)


# Goldens


def test_texts_of_the_original(goldens, casing):
  vocab = goldens("vocab.txt")
  ids_of = tokenization.load_vocab(vocab)
  lower = casing == "lower"
  tokenizer = tokenization.FullTokenizer(str(vocab), lower)
  compared = 0
  for row in rows(goldens("tokenization.jsonl")):
    if PYTHON in row["differs_on_python"]:
      continue
    text, expected = row["text"], row[casing]
    assert tokenizer.basic_tokenizer.tokenize(text) == expected["basic"]
    assert tokenizer.tokenize(text) == expected["tokens"]
    assert tokenizer.encode(text) == expected["ids"]
    assert (
      tokenizer.convert_tokens_to_ids(expected["tokens"]) == (expected["ids"])
    )
    assert (
      tokenizer.convert_ids_to_tokens(expected["ids"]) == (expected["tokens"])
    )
    assert reference.basic(text, lower) == expected["basic"]
    assert reference.tokenize(text, ids_of, lower) == expected["tokens"]
    assert reference.encode(text, ids_of, lower) == expected["ids"]
    compared += 1
  assert compared > 70


def test_bytes_of_the_original(goldens, casing):
  tokenizer = tokenization.FullTokenizer(
    str(goldens("vocab.txt")), casing == "lower"
  )
  for row in rows(goldens("bytes.jsonl")):
    text = bytes.fromhex(row["bytes_hex"])
    assert tokenizer.basic_tokenizer.tokenize(text) == row[casing]["basic"]
    assert tokenizer.tokenize(text) == row[casing]["tokens"]
    assert tokenizer.encode(text) == row[casing]["ids"]


def test_wordpiece_of_the_original(goldens):
  golden = json.loads(goldens("wordpiece.json").read_text(encoding="utf-8"))
  # The original takes whatever knows `in`.
  for vocab in (
    golden["vocab"],
    {token: i for i, token in enumerate(golden["vocab"])},
  ):
    for case in golden["cases"]:
      tokenizer = tokenization.WordpieceTokenizer(vocab, **case["kwargs"])
      assert tokenizer.tokenize(case["text"]) == case["tokens"]
      assert (
        reference.wordpiece(case["text"], vocab, **case["kwargs"])
        == case["tokens"]
      )


def test_quirky_vocabulary_of_the_original(goldens):
  golden = json.loads(goldens("quirky_vocab.json").read_text(encoding="utf-8"))
  vocab = tokenization.load_vocab(goldens("quirky_vocab.txt"))
  assert list(vocab.items()) == [tuple(pair) for pair in golden]


def test_texts_of_the_originals_own_test(tmp_path):
  tokenizer = tokenization.FullTokenizer(write_vocab(tmp_path / "vocab.txt"))
  tokens = tokenizer.tokenize("UNwant\u00e9d,running")
  assert tokens == ["un", "##want", "##ed", ",", "runn", "##ing"]
  assert tokenizer.convert_tokens_to_ids(tokens) == [7, 4, 5, 10, 8, 9]
  assert tokenizer.encode("UNwant\u00e9d,running") == [7, 4, 5, 10, 8, 9]
  basic = tokenization.BasicTokenizer()
  assert basic.tokenize("ah\u535a\u63a8zz") == ["ah", "\u535a", "\u63a8", "zz"]


# The casing of published checkpoints


def validate_case_rows():
  for row in rows(OWN / "validate_case.jsonl"):
    yield row["do_lower_case"], row["init_checkpoint"], row["accepted"]
  path = SHARED / "tokenization" / "validate_case.json"
  if path.is_file():
    for row in json.loads(path.read_text(encoding="utf-8")):
      yield row["do_lower_case"], row["init_checkpoint"], row["error"] is None


def test_casing_is_judged_as_by_the_original():
  for do_lower_case, checkpoint, accepted in validate_case_rows():
    try:
      tokenization.validate_case_matches_checkpoint(do_lower_case, checkpoint)
    except ValueError as error:
      assert not accepted
      assert f"--do_lower_case={do_lower_case} " in str(error)
      assert f"--do_lower_case={not do_lower_case}," in str(error)
      assert f"--init_checkpoint={checkpoint}:" in str(error)
      assert f" {checkpoint.split('/')[-2]} " in str(error)
    else:
      assert accepted


@pytest.mark.parametrize("checkpoint", [None, "", "bert_model.ckpt"])
def test_a_checkpoint_without_a_known_name_passes(checkpoint):
  tokenization.validate_case_matches_checkpoint(True, checkpoint)
  tokenization.validate_case_matches_checkpoint(False, checkpoint)


# Every code point


def is_assigned(code_point):
  category = unicodedata.category(chr(min(code_point, sys.maxunicode)))
  return category not in ("Cn", "Co", "Cs")


def assigned_code_points():
  """The assigned ones, the edges of the gaps, and a few inside the gaps."""
  for code_point in range(sys.maxunicode + 1):
    near = (code_point, max(0, code_point - 1), code_point + 1)
    if code_point % 101 == 0 or any(map(is_assigned, near)):
      yield code_point


def in_contexts(code_points):
  """Each character at the start of a word, inside one, and alone."""
  for char in map(chr, code_points):
    yield f"{char}A{char}b {char}"


def around_sigma(code_points):
  """Each character next to a capital sigma, whose lower case it may decide."""
  for char in map(chr, code_points):
    yield f"A{char}\u03a3 A\u03a3{char}B"


@pytest.mark.parametrize("do_lower_case", [True, False])
def test_assigned_code_points(word_encoder, do_lower_case):
  tokenizer = word_encoder(do_lower_case)
  assert_same_words(tokenizer, in_contexts(assigned_code_points()))


def test_final_sigma_beside_assigned_code_points(word_encoder):
  assert_same_words(word_encoder(True), around_sigma(assigned_code_points()))


@pytest.mark.slow
@pytest.mark.parametrize(
  "do_lower_case, contexts",
  [(True, in_contexts), (False, in_contexts), (True, around_sigma)],
)
def test_all_code_points(word_encoder, do_lower_case, contexts):
  tokenizer = word_encoder(do_lower_case)
  assert_same_words(tokenizer, contexts(range(sys.maxunicode + 1)))


def test_code_points_that_need_context():
  table = tokenization.CodePointTable()
  needy = [
    code_point
    for code_point in range(sys.maxunicode + 1)
    if table[code_point] == tokenization.NEEDS_CONTEXT
  ]
  assert 0x3A3 in needy
  needy.remove(0x3A3)
  for code_point in needy:
    decomposed = unicodedata.normalize("NFD", chr(code_point))
    assert any(
      unicodedata.combining(char) and unicodedata.category(char) != "Mn"
      for char in decomposed
    )
  # A word about how rare they are: the way round the table is a slow one.
  assert len(needy) < 100
  assert table.alone(0x3A3) == "\u03c3"
  cased = tokenization.CodePointTable(do_lower_case=False)
  assert cased[0x3A3] == "\u03a3"


# Neighbours


def test_final_sigma(word_encoder):
  tokenizer = word_encoder(True)
  # Cased letters, case-ignorable marks, marks that are deleted, separators.
  neighbours = "\u03a3\u03b1A'.\u0301\u00ad\x00\x0b\u4e2d 1"
  assert_same_words(
    tokenizer, map("".join, itertools.product(neighbours, repeat=4))
  )
  assert tokenizer.basic_tokenizer.tokenize(
    "\u039f\u03a3 \u039f\u03a3\u0391"
  ) == [
    "\u03bf\u03c2",
    "\u03bf\u03c3\u03b1",
  ]


def test_order_of_combining_marks(word_encoder):
  # Classes 9, 216, 224 and 6, marks that stay; 230 and 0, marks that go.
  marks = "a\u1baa\U0001d165\u302e\U00016ff0\u0301\u0e31"
  tokenizer = word_encoder(True)
  assert_same_words(tokenizer, map("".join, itertools.product(marks, repeat=4)))
  assert tokenizer.basic_tokenizer.tokenize("a\u302e\U0001d165") == [
    "a\U0001d165\u302e"
  ]


POOLS = [
  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
  "the and ing un want ed Running 1999 ",
  "".join(map(chr, range(128))),
  "".join(map(chr, range(0x80, 0x250))),
  "".join(map(chr, range(0x300, 0x370))),
  "".join(map(chr, range(0x370, 0x530))),
  "\u03a3\u03c3\u03c2\u0391'\u00b7.",
  "".join(map(chr, range(0x590, 0x700))),
  "".join(map(chr, range(0x900, 0xE80))),
  "".join(map(chr, range(0x1B00, 0x1C00))),
  "".join(map(chr, range(0x1E00, 0x2070))),
  "".join(map(chr, range(0x3000, 0x3100))),
  "".join(map(chr, range(0x4E00, 0x4F00))) + "\uf900\U0002f800\U00020000",
  "".join(map(chr, range(0xAC00, 0xAC80))),
  "".join(map(chr, range(0xFE00, 0x10000))),
  "".join(map(chr, range(0x1D15E, 0x1D1C1))),
  "\U0001f468\u200d\U0001f469\ufe0f\u20e3\U0001f1fa",
  "\ud800\udfff",
  " \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000",
  "\x00\x7f\xad\ufeff\ufffd\u200b\u2060\U000e0067",
]


def random_texts(seed, count):
  rng = random.Random(seed)
  for _ in range(count):
    pools = rng.sample(POOLS, 3) + [" "]
    length = rng.randrange(1, 40)
    yield "".join(rng.choice(rng.choice(pools)) for _ in range(length))


def test_random_words(word_encoder, casing):
  assert_same_words(word_encoder(casing == "lower"), random_texts(1, 20000))


def test_random_tokens(casing):
  lower = casing == "lower"
  tokenizer = tokenization.FullTokenizer(str(OWN / "vocab.txt"), lower)
  for text in random_texts(2, 5000):
    tokens = reference.tokenize(text, tokenizer.vocab, lower)
    assert tokenizer.tokenize(text) == tokens, ascii(text)
    assert tokenizer.encode(text) == tokenizer.convert_tokens_to_ids(tokens)


# The memo


def test_the_memo_stays_bounded_and_right(monkeypatch, tmp_path):
  monkeypatch.setattr(tokenization, "_MAX_MEMO_ENTRIES", 8)
  tokenizer = tokenization.FullTokenizer(write_vocab(tmp_path / "vocab.txt"))
  memos = [
    tokenizer._ids_of_written,
    tokenizer._ids_of_word,
    tokenizer.wordpiece_tokenizer._pieces_of,
  ]
  words = ["unwanted", "runn!", *map(str, range(30)), "Running,", "un"] * 2
  for word in words:
    tokens = reference.tokenize(word, tokenizer.vocab, True)
    assert tokenizer.tokenize(word) == tokens
    assert tokenizer.encode(word) == tokenizer.convert_tokens_to_ids(tokens)
    assert all(0 < len(memo) <= 8 for memo in memos)


def test_the_memo_takes_no_long_words(tmp_path):
  tokenizer = tokenization.FullTokenizer(write_vocab(tmp_path / "vocab.txt"))
  for _ in range(2):
    assert tokenizer.encode("x" * 33) == [0]
    assert tokenizer.encode("un" + "want" * 49 + "ed") == [7] + 49 * [4] + [5]
    assert tokenizer.encode("un" + "want" * 49 + "wed") == [0]
  assert not tokenizer._ids_of_written
  assert not tokenizer._ids_of_word


def test_a_result_may_be_changed_by_its_receiver(tmp_path):
  tokenizer = tokenization.FullTokenizer(write_vocab(tmp_path / "vocab.txt"))
  for result, expected in (
    (lambda: tokenizer.tokenize("unwanted"), ["un", "##want", "##ed"]),
    (lambda: tokenizer.encode("unwanted"), [7, 4, 5]),
  ):
    result().clear()
    assert result() == expected


def test_pickled_for_a_worker_process(tmp_path):
  tokenizer = tokenization.FullTokenizer(write_vocab(tmp_path / "vocab.txt"))
  ids = tokenizer.encode("unwanted, running")
  copy = pickle.loads(pickle.dumps(tokenizer))
  assert not copy._ids_of_written
  assert copy.encode("unwanted, running") == ids
  assert copy.tokenize("unwanted") == tokenizer.tokenize("unwanted")


# Vocabularies


def test_lines_end_at_newlines_only(tmp_path):
  path = tmp_path / "lines.txt"
  path.write_bytes(b"a\rb\r\n\n c\xe2\x80\xa8d\x0ce\n\r\r")
  assert list(tokenization.read_lines(path)) == ["ab", "", " c\u2028d\x0ce"]


def test_vocabulary_without_unk(tmp_path):
  tokenizer = tokenization.FullTokenizer(
    write_vocab(tmp_path / "vocab.txt", ["un", "##want"])
  )
  assert tokenizer.encode("unwant un") == [0, 1, 0]
  assert tokenizer.tokenize("un xyz") == ["un", "[UNK]"]
  with pytest.raises(ValueError, match=r"'\[UNK\]' is not in the vocabulary"):
    tokenizer.encode("un xyz")
  with pytest.raises(ValueError, match=r"'\[UNK\]' is not in the vocabulary"):
    tokenizer.convert_tokens_to_ids(["[UNK]"])
  with pytest.raises(ValueError, match="^7 is not in the vocabulary of 2 "):
    tokenizer.convert_ids_to_tokens([0, 7])


def test_blank_tokens_end(tmp_path):
  # Neither "" nor "##" advances; looking for them would never end.
  tokenizer = tokenization.FullTokenizer(
    write_vocab(tmp_path / "vocab.txt", ["", "##", "[UNK]"])
  )
  assert tokenizer.encode("word a") == [2, 2]
  path = tmp_path / "blank.txt"
  path.write_text("\n", encoding="utf-8")
  assert tokenization.FullTokenizer(path).tokenize("word") == ["[UNK]"]


@pytest.mark.parametrize(
  "content, error, message",
  [
    (None, FileNotFoundError, "vocab.txt: no such file"),
    (b"", ValueError, "vocab.txt: the vocabulary is empty"),
    (b"\r\r", ValueError, "vocab.txt: the vocabulary is empty"),
    (b"a\n\xe9\n", ValueError, r"vocab.txt, line 2: not UTF-8 \(byte 0xe9\)"),
    (b"a\nb\xe9", ValueError, r"vocab.txt, line 2: not UTF-8 \(byte 0xe9\)"),
    (b"a\rb", ValueError, "vocab.txt, line 1: its lines end in CR alone"),
    (b"a\rb\r", ValueError, "vocab.txt, line 1: its lines end in CR alone"),
  ],
)
def test_bad_vocabularies(tmp_path, content, error, message):
  path = tmp_path / "vocab.txt"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(error, match=message):
    tokenization.FullTokenizer(str(path))


def test_a_byte_order_mark_is_no_part_of_the_first_token(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_bytes(b"\xef\xbb\xbf[PAD]\r\n\xef\xbb\xbfb\n")
  assert tokenization.load_vocab(path) == {"[PAD]": 0, "\ufeffb": 1}


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
  path = tmp_path / "vocab.txt"
  path.write_text("a\n")

  def refuse(*args):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr("builtins.open", refuse)
  with pytest.raises(OSError, match="vocab.txt cannot be read .Permission den"):
    tokenization.load_vocab(path)


def test_a_folder_is_no_vocabulary(tmp_path):
  with pytest.raises(FileNotFoundError, match="no such file; name a file in"):
    tokenization.load_vocab(str(tmp_path))
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(FileNotFoundError, match="cannot be read twice: write it"):
    tokenization.load_vocab(str(tmp_path / "pipe"))


def test_vocabulary_behind_a_scheme(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_bytes(b"a\r\nb\n\nc\r")
  vocab = tokenization.load_vocab(str(path))
  assert tokenization.load_vocab(f"file://{path}") == vocab
  with pytest.raises(FileNotFoundError, match="file://.*none.txt: no such"):
    tokenization.load_vocab(f"file://{tmp_path}/none.txt")


# Text and bytes


@pytest.mark.parametrize(
  "function", [tokenization.convert_to_unicode, tokenization.printable_text]
)
def test_text_may_be_str_or_bytes(function):
  assert function("caf\u00e9") == "caf\u00e9"
  assert function(b"caf\xc3\xa9\xff") == "caf\u00e9"
  with pytest.raises(ValueError, match="str or bytes, not int: 7"):
    function(7)


def test_whitespace_tokenize():
  assert tokenization.whitespace_tokenize("  a\u2028b \t c\n") == [*"abc"]
  assert tokenization.whitespace_tokenize(" \n") == []


# Alone


def test_needs_nothing_but_python(tmp_path):
  shutil.copy(tokenization.__file__, tmp_path)
  program = (
    "import sys; sys.path.insert(0, '.'); before = set(sys.modules);"
    "import tokenization; new = set(sys.modules) - before - {'tokenization'};"
    "tokenization.BasicTokenizer().tokenize('\\u03a3.');"
    "print(sorted({n.split('.')[0] for n in new} - sys.stdlib_module_names))"
  )
  result = subprocess.run(
    [sys.executable, "-I", "-c", program],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=True,
  )
  assert result.stdout.strip() == "[]"


# Special tokens in a text


@pytest.fixture
def marked_vocab(tmp_path):
  tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "[E1]"]
  tokens += ["[", "]", "mask", "a", "b", "##b", "["]
  path = tmp_path / "marked.txt"
  path.write_text("\n".join(tokens) + "\n")
  return str(path)


def test_special_tokens_in_a_text_are_words_unless_kept(marked_vocab):
  split = tokenization.FullTokenizer(marked_vocab)
  assert split.tokenize("a [MASK]") == ["a", "[", "mask", "]"]
  kept = tokenization.FullTokenizer(marked_vocab, special_tokens_in_text="keep")
  assert kept.tokenize("a [MASK]b") == ["a", "[MASK]", "b"]


@pytest.mark.parametrize(
  ("text", "tokens"),
  [
    ("", []),
    ("[MASK]", ["[MASK]"]),
    ("a[E1]b[unused1]", ["a", "[E1]", "b", "[unused1]"]),
    ("[SEP] [CLS][UNK]", ["[SEP]", "[CLS]", "[UNK]"]),
    ("[mask]", ["[", "mask", "]"]),
    ("[[MASK]]", ["[", "[MASK]", "]"]),
    ("[unused2", ["[", "[UNK]"]),
    ("[MASK", ["[", "mask"]),
    ("[M\0ASK]", ["[", "mask", "]"]),
  ],
)
def test_kept_special_tokens(marked_vocab, text, tokens):
  tokenizer = tokenization.FullTokenizer(
    marked_vocab, special_tokens_in_text="keep"
  )
  assert tokenizer.tokenize(text) == tokens
  assert tokenizer.tokenize(text.encode()) == tokens
  ids = tokenizer.convert_tokens_to_ids(tokens)
  assert tokenizer.encode(text) == ids


def test_every_bracketed_entry_is_special(marked_vocab):
  kept = tokenization.FullTokenizer(marked_vocab, special_tokens_in_text="keep")
  assert kept.special_tokens == [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[unused1]",
    "[E1]",
  ]


@pytest.mark.parametrize(
  "text",
  [
    "",
    "[]",
    "{}",
    '{"model": {"type": "BPE", "vocab": {"a": 0}}}',
    '{"model": {"vocab": {}}}',
    '{"model": {"vocab": {"a": "b"}}}',
    '{"model": {"vocab": {"a": -7}}}',
  ],
)
def test_a_tokenizer_json_of_another_kind_is_refused(tmp_path, text):
  path = tmp_path / "tokenizer.json"
  path.write_text(text)
  with pytest.raises(ValueError, match="holds no vocabulary of BERT's kind"):
    tokenization.load_vocab(path)
