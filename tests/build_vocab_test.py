"""A learnt vocabulary fits the tokenizer, and is the same at every run."""

import collections
import os
import pathlib
import random
import subprocess
import sys

import pytest

import build_vocab
import reference_tokenization as reference
import tokenization

ROOT = pathlib.Path(__file__).parent.parent
DEFAULTS = {
  "vocab_size": 400,
  "num_unused_tokens": 0,
  "min_frequency": 2,
  "limit_alphabet": 1000,
}
TEXT = (
  "The singer sings, the ringer rings: singing and ringing!\n"
  "\u039f \u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3 sang to"
  " \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2.\n\r\n"
  "\u5317\u4eac is Beijing; caf\u00e9s, Stra\u00dfen\x0cund \u00c4rger.\n"
  "\u0938\u0902\u0938\u094d\u0915\u0943\u0924 \U0001f600 a\u302e\u0e31b\u2028c"
)


def write_text(tmp_path, text=TEXT, name="text.txt"):
  path = tmp_path / name
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return str(path)


def learn(counts, **settings):
  return build_vocab.learn_vocab(counts, **(DEFAULTS | settings))


def run_script(*arguments, environment=()):
  """Runs the script, and then whether it has imported TensorFlow."""
  program = (
    "import sys, build_vocab\n"
    "try: build_vocab.cli()\n"
    "finally: print('tensorflow:', 'tensorflow' in sys.modules)"
  )
  return subprocess.run(
    [sys.executable, "-c", program, *arguments],
    cwd=ROOT,
    env={**os.environ, **dict(environment)},
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize("do_lower_case", [True, False])
@pytest.mark.parametrize("min_frequency", [1, 2])
def test_text_goes_to_pieces_and_back(tmp_path, do_lower_case, min_frequency):
  path = write_text(tmp_path)
  counts, _ = build_vocab.count_words([path], do_lower_case)
  learnt, num_unknown = learn(counts, min_frequency=min_frequency)
  vocab_file = str(tmp_path / "vocab.txt")
  build_vocab.write_vocab(vocab_file, learnt)
  tokenizer = tokenization.FullTokenizer(vocab_file, do_lower_case)

  assert num_unknown == 0
  assert len(set(learnt)) == len(learnt)
  assert list(tokenizer.vocab.items()) == [(t, i) for i, t in enumerate(learnt)]
  for word in counts:
    pieces = tokenizer.wordpiece_tokenizer.tokenize(word)
    assert "[UNK]" not in pieces
    assert pieces[0] + "".join(x[2:] for x in pieces[1:]) == word
  for line in tokenization.read_lines(path):
    ids = reference.encode(line, tokenizer.vocab, do_lower_case)
    assert tokenizer.encode(line) == ids
  for index, token in enumerate(learnt[5:], start=5):
    if not token.startswith("##"):
      assert tokenizer.encode(token) == [index]


def test_frequent_pieces_are_learnt():
  counts = collections.Counter({"ringing": 5, "singing": 4, "sung": 1})
  learnt, _ = learn(counts, vocab_size=19)
  assert learnt[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  assert learnt[5:15] == "g i n r s u ##g ##i ##n ##u".split()
  # Joined 19, 18, 9 and 5 times.
  assert learnt[15:] == "##ng ##ing ##inging ringing".split()


def test_no_more_pieces_than_the_text_has():
  learnt, _ = learn(collections.Counter({"ab": 3, "cd": 1}))
  assert learnt[5:] == ["a", "b", "c", "d", "##b", "##d", "ab"]
  learnt, _ = learn(collections.Counter({"ab": 3, "cd": 1}), min_frequency=1)
  assert learnt[11:] == ["ab", "cd"]


def test_a_word_counts_as_often_as_it_occurs():
  # More often than is handed to the trainer at a time.
  frequent = {"ab": 2 * build_vocab._REPEATS + 1, "cd": 1999}
  for counts in (frequent, dict(reversed(frequent.items()))):
    assert learn(counts, min_frequency=2001)[0][-1] == "ab"
    assert learn(counts, min_frequency=2002)[0][-1] == "##d"


def test_unused_tokens_follow_padding():
  learnt, _ = learn(collections.Counter(a=1), num_unused_tokens=2)
  assert learnt == (
    "[PAD] [unused0] [unused1] [UNK] [CLS] [SEP] [MASK] a".split()
  )


def test_rare_characters_are_left_out():
  counts = collections.Counter({"bad": 5, "cab": 3, "z": 3, "y": 3, "x": 1})
  # b a d c, then of y and z, equally frequent, the smaller.
  learnt, num_unknown = learn(counts, limit_alphabet=5)
  assert learnt[5:13] == ["a", "b", "c", "d", "y", "##a", "##b", "##d"]
  assert num_unknown == 3 + 1
  learnt, num_unknown = learn(counts, limit_alphabet=3)
  assert learnt[5:10] == ["a", "b", "d", "##a", "##d"]
  assert num_unknown == 3 + 3 + 3 + 1


def test_words_too_long_for_the_tokenizer_are_left_out():
  counts = collections.Counter({"a" * 201: 9, "a" * 200: 1})
  learnt, num_unknown = learn(counts, vocab_size=7)
  assert learnt[5:] == ["a", "##a"]
  assert num_unknown == 9


def test_the_same_text_gives_the_same_file(tmp_path):
  # Many pairs equally frequent: ties that chance could decide.
  rng = random.Random(0)
  words = ["".join(rng.choices("abcdefgh", k=6)) for _ in range(3000)]
  path = write_text(tmp_path, " ".join(words))
  written = []
  for run in range(3):
    output = tmp_path / f"vocab{run}.txt"
    result = run_script(
      f"--input_file={path}",
      f"--output_file={output}",
      "--vocab_size=700",
      environment={"PYTHONHASHSEED": str(run), "RAYON_NUM_THREADS": str(run)},
    )
    assert result.returncode == 0, result.stderr
    written.append(output.read_bytes())
  assert written[0] == written[1] == written[2]
  assert written[0].count(b"\n") == 700


def test_script(tmp_path):
  write_text(tmp_path, "one two\nTwo three\n", "a1.txt")
  write_text(tmp_path, "\r\nthree three\r\n", "a2.txt")
  other = write_text(tmp_path, "four", "b.txt")
  output = tmp_path / "vocab.txt"
  result = run_script(
    f"--input_file={tmp_path}/a?.txt,{other},{other}",
    f"--output_file={output}",
    "--vocab_size=40",
    "--num_unused_tokens=1",
  )
  assert result.returncode == 0
  assert result.stderr == ""
  learnt = output.read_text(encoding="utf-8").split("\n")
  assert learnt[:3] == ["[PAD]", "[unused0]", "[UNK]"]
  assert {"two", "three"} < set(learnt)
  assert learnt[-1] == ""
  summary, hint, heavy = result.stdout.splitlines()
  assert summary.startswith(
    f"5 lines, 7 words, 4 distinct: {len(learnt) - 1} tokens written to"
    f" {output} in "
  )
  assert summary.endswith(" s. 0.00% of the words are [UNK].")
  assert f"set vocab_size to {len(learnt) - 1} " in hint
  assert heavy == "tensorflow: False"
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    "a1.txt",
    "a2.txt",
    "b.txt",
    "vocab.txt",
  ]


@pytest.mark.parametrize(
  "text, flags, message",
  [
    (None, {}, "--input_file: no file matches '{}/text.txt'; check the path"),
    ("", {}, "--input_file: no words in {}/text.txt; is it the right file?"),
    (" \x00\n\u0301", {}, "--input_file: no words in {}/text.txt;"),
    (b"a\n\xff", {}, "{}/text.txt, line 2: not UTF-8 (byte 0xff); convert"),
    (
      "ab",
      {"output_file": "{}/none/v.txt"},
      "--output_file={}/none/v.txt: {}/none is no directory that can be",
    ),
    ("ab", {"output_file": "{}"}, "--output_file={}: not the name of a"),
    ("ab", {"output_file": "{}/text.txt"}, "--output_file={}/text.txt is also"),
    (
      "ab",
      {"vocab_size": "7"},
      "--vocab_size=7 is too small for 5 special tokens and the pieces of 2"
      " characters; pass 8 or more, or lower --limit_alphabet=1000",
    ),
  ],
)
def test_mistakes(tmp_path, text, flags, message):
  if text is not None:
    write_text(tmp_path, text)
  flags = {
    "input_file": "{}/text.txt",
    "output_file": "{}/vocab.txt",
    "vocab_size": "30522",
  } | flags
  result = run_script(
    *(
      f"--{name}={value.replace('{}', str(tmp_path))}"
      for name, value in flags.items()
    )
  )
  assert result.returncode == 1
  message = message.replace("{}", str(tmp_path))
  assert result.stderr.startswith(f"build_vocab: error: {message}")
  assert result.stderr.count("\n") == 1
  assert not (tmp_path / "vocab.txt").exists()


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "vocab.txt"
  path.write_text("old\n", encoding="utf-8")

  def interrupted():
    yield "new"
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    build_vocab.write_vocab(str(path), interrupted())
  assert path.read_text(encoding="utf-8") == "old\n"
  assert list(tmp_path.iterdir()) == [path]


def test_a_vocabulary_goes_into_the_current_directory(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  build_vocab.write_vocab("vocab.txt", ["a"])
  assert (tmp_path / "vocab.txt").read_bytes() == b"a\n"
