"""SQuAD files, upstream's windows, characters of pieces, and the cache."""

import copy
import dataclasses
import json
import os
import pathlib
import random
import re
import weakref

import numpy as np
import pytest
import tensorflow as tf

import reference_squad_data as reference
import tokenization
from bert_keras3.tasks import squad_data
from bert_keras3.tasks.squad_data import SquadExample

OWN = pathlib.Path(__file__).parent / "testdata" / "squad"
SHARED = pathlib.Path(__file__).parent.parent.parent / "shared"
# Of the 43 training questions those whose answers upstream loses.
RECOVERED = ("q026-unicode", "q027-unicode", "q029-unicode", "q031-offsets")


def json_lines(path):
  with open(path, encoding="utf-8") as lines:
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def tokenizer():
  return tokenization.FullTokenizer(OWN / "vocab.txt")


@pytest.fixture(scope="module")
def cased_tokenizer():
  return tokenization.FullTokenizer(OWN / "vocab.txt", do_lower_case=False)


def make_tokenizer(folder, words, do_lower_case=True):
  path = folder / "own_vocab.txt"
  tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
  path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
  return tokenization.FullTokenizer(path, do_lower_case)


def make_data(context, *questions):
  """A file of one paragraph; questions are (text, answer, where) or dicts."""
  entries = []
  for number, question in enumerate(questions):
    if not isinstance(question, dict):
      text, answer, start = question
      answers = [{"text": answer, "answer_start": start}]
      question = {"question": text, "answers": answers}
    entries.append({"id": f"q{number}", **question})
  paragraph = {"context": context, "qas": entries}
  return {"version": "1.1", "data": [{"paragraphs": [paragraph]}]}


def write(folder, data):
  path = folder / "questions.json"
  text = data if isinstance(data, str) else json.dumps(data)
  path.write_text(text, encoding="utf-8")
  return str(path)


def read_one(folder, context, answer, start, **options):
  path = write(folder, make_data(context, ("why", answer, start)))
  return squad_data.read_squad_examples(path, True, **options)[0]


def windows_of(examples, tokenizer, settings=(64, 32, 16), is_training=False):
  return squad_data.make_windows(examples, tokenizer, *settings, is_training)


def as_features(windows, max_seq_length, is_training):
  """The windows in the fields and types of the golden files."""
  features = []
  for i in range(len(windows)):
    start, stop = windows.word_starts[i : i + 2]
    flags = windows.is_max_context[start:stop].astype(int).tolist()
    positions = (windows.start_positions[i], windows.end_positions[i])
    positions = map(int, positions) if is_training else (None, None)
    first, last = positions
    features.append(
      {
        "unique_id": int(windows.unique_ids[i]),
        "example_index": int(windows.example_index[i]),
        "doc_span_index": int(windows.doc_span_index[i]),
        "input_ids": windows.sequences.ids(i).tolist(),
        "padded_length": max_seq_length,
        "first_doc_token": int(windows.first_doc_token[i]),
        "token_to_orig": windows.word_index[start:stop].tolist(),
        "token_is_max_context": "".join(map(str, flags)),
        "start_position": first,
        "end_position": last,
        "is_impossible": bool(windows.is_impossible[i]),
      }
    )
  return features


def without(rows, *names):
  return [{k: x[k] for k in x if k not in names} for x in rows]


# Upstream's features ----------------------------------------------------------


def golden_set(goldens, name):
  """(flags, examples as upstream has them, tokenizer) of a set."""
  meta = json.loads((goldens / "squad" / "meta.json").read_text())
  flags = meta["sets"][name]
  examples = squad_data.read_squad_examples(
    str(goldens / "inputs" / "squad" / flags["file"]),
    flags["is_training"],
    flags["version_2_with_negative"],
    recover_answers=False,
  )
  vocab = goldens / "vocab" / "vocab.txt"
  lower = flags["do_lower_case"]
  return flags, examples, tokenization.FullTokenizer(vocab, lower)


def settings_of(flags):
  return [
    flags[x] for x in ("max_seq_length", "doc_stride", "max_query_length")
  ]


GOLDEN_SETS = (
  "dev11_cased_s128",
  "dev11_s384",
  "dev20_s384",
  "dev20_s96",
  "train11_s384",
  "train11_stride_gt_len_s64",
  "train20_s384",
)


@pytest.mark.parametrize("name", GOLDEN_SETS)
def test_windows_equal_upstreams(goldens, name):
  flags, examples, tokenizer = golden_set(goldens, name)
  is_training = flags["is_training"]
  windows = windows_of(examples, tokenizer, settings_of(flags), is_training)
  path = goldens / "squad" / "features" / f"{name}.features.jsonl"
  expected = without(json_lines(path), "tokens")
  assert len(examples) == flags["examples"] == windows.num_examples
  assert as_features(windows, flags["max_seq_length"], is_training) == expected


@pytest.mark.parametrize("name", ["dev20_s384", "train20_s384"])
def test_examples_equal_upstreams(goldens, name):
  _, examples, _ = golden_set(goldens, name)
  path = goldens / "squad" / "features" / f"{name}.examples.jsonl"
  expected = json_lines(path)
  reprs = [x.pop("repr") for x in expected]  # None where it would be long.
  assert [
    {name: getattr(x, name) for name in expected[0]} for x in examples
  ] == (expected)
  assert [str(x) for x, y in zip(examples, reprs, strict=True) if y] == (
    [x for x in reprs if x]
  )


@pytest.mark.parametrize("name", ["dev20_s96", "train20_s96"])
def test_records_equal_upstreams(goldens, tmp_path, name):
  flags, examples, tokenizer = golden_set(goldens, name)
  is_training = flags["is_training"]
  writer = squad_data.FeatureWriter(str(tmp_path / "out"), is_training)
  squad_data.convert_examples_to_features(
    examples,
    tokenizer,
    *settings_of(flags),
    is_training,
    writer.process_feature,
  )
  writer.close()
  assert writer.num_features == flags["features"]
  path = str(goldens / "squad" / "features" / f"{name}.tf_record")
  expected = parsed_records(path)
  assert len(expected) == 60
  assert parsed_records(str(tmp_path / "out"))[:60] == expected


def parsed_records(path):
  records = []
  for record in tf.data.TFRecordDataset(path):
    features = tf.train.Example.FromString(record.numpy()).features.feature
    records.append({k: list(x.int64_list.value) for k, x in features.items()})
  return records


@pytest.mark.parametrize("name", GOLDEN_SETS)
def test_reference_equals_upstream(goldens, name):
  flags, _, tokenizer = golden_set(goldens, name)
  data = json.loads((goldens / "inputs/squad" / flags["file"]).read_text())
  examples = reference.read_examples(
    data, flags["is_training"], flags["version_2_with_negative"]
  )
  found = reference.make_features(
    examples, tokenizer, flags, flags["is_training"]
  )
  path = goldens / "squad" / "features" / f"{name}.features.jsonl"
  expected = without(json_lines(path), "tokens")
  assert without(found, "tokens") == expected


def test_recovered_answers_come_beside_upstreams(goldens):
  flags, examples, tokenizer = golden_set(goldens, "train20_s384")
  path = goldens / "inputs" / "squad" / flags["file"]
  recovered = squad_data.read_squad_examples(str(path), True, True)
  kept = {x.qas_id for x in examples}
  assert {x.qas_id for x in recovered} == kept | set(RECOVERED)
  assert [x for x in recovered if x.qas_id in kept] == examples


def test_windows_of_the_real_files():
  path = SHARED / "data" / "squad" / "dev-v1.1.json"
  vocab = SHARED / "goldens" / "vocab" / "vocab.txt"
  if not path.is_file() or not vocab.is_file():
    pytest.skip("SQuAD is not beside this checkout")
  examples = squad_data.read_squad_examples(str(path), False)
  tokenizer = tokenization.FullTokenizer(vocab)
  windows = windows_of(examples, tokenizer, (384, 128, 64))
  # The figure that upstream and its descendants print for this file.
  assert (len(examples), len(windows)) == (10570, 10833)
  assert sum(len(x.answers) for x in examples) == 34726
  check_characters(examples, windows, tokenizer, step=20)


# The same without upstream's files


def test_excerpt_equals_upstreams(tokenizer):
  examples = squad_data.read_squad_examples(
    str(OWN / "train.json"), True, recover_answers=False
  )
  windows = windows_of(examples, tokenizer, (64, 100, 16), True)
  found = as_features(windows, 64, True)
  for feature in found:
    tokens = tokenizer.convert_ids_to_tokens(feature.pop("input_ids"))
    feature["tokens"] = " ".join(tokens)
  assert found == json_lines(OWN / "features.jsonl")


SCRAPS = (
  *("the", "bridge", "John", "Smith", "1895", "Smith's", "built", "by", "zzz"),
  *("(1861-1943).", "co-op", "\u5317\u4eac", "caf\u00e9", "\u200b", "...", "a"),
  *("10\u00a0000", "a\u2009a", "\u3000the", "[MASK]", "UNBUILT"),
)
GAPS = (" ", "  ", "\t", "\r\n", "\u202f", " \n ")


def random_data(rng):
  """A file of some paragraphs, with answers anywhere in them."""
  paragraphs = []
  for number in range(3):
    words = rng.choices(SCRAPS, k=rng.choice([0, 1, 3, 20, 90]))
    context = "".join(word + rng.choice(GAPS) for word in words)
    context = rng.choice(["", "", "  "]) + context
    questions = []
    for count in range(3):
      question = {
        "id": f"{number}-{count}",
        "question": " ".join(rng.choices(SCRAPS, k=rng.randrange(9))),
        "is_impossible": not context.strip() or rng.random() < 0.2,
      }
      question["answers"] = [random_answer(rng, context, question)]
      questions.append(question)
    paragraphs.append({"context": context, "qas": questions})
  return {"data": [{"paragraphs": paragraphs}]}


def random_answer(rng, context, question):
  while not question["is_impossible"]:
    start = rng.randrange(len(context))
    text = context[start : start + rng.randrange(1, 40)]
    if text.strip():
      return {"text": text, "answer_start": start}
  return {"text": "", "answer_start": 0}


@pytest.mark.parametrize("seed", range(60))
def test_windows_equal_the_reference(tmp_path, tokenizer, seed):
  rng = random.Random(seed)
  data = random_data(rng)
  is_training = seed % 3 > 0
  settings = {
    "max_query_length": rng.randrange(1, 8),
    "max_seq_length": rng.choice([12, 16, 25, 60, 200]),
    "doc_stride": rng.choice([1, 2, 3, 5, 8, 100]),
  }
  plain = reference.read_examples(data, is_training, True)
  expected = reference.make_features(plain, tokenizer, settings, is_training)
  try:
    examples = squad_data.read_squad_examples(
      write(tmp_path, data), is_training, True, recover_answers=False
    )
  except ValueError:
    examples = []
  windows = windows_of(examples, tokenizer, settings_of(settings), is_training)
  found = as_features(windows, settings["max_seq_length"], is_training)
  assert found == without(expected, "tokens")
  check_characters(examples, windows, tokenizer)


def check_best_windows(num_tokens, room, stride):
  spans = squad_data.window_spans(num_tokens, room, stride)
  assert spans == reference.lay_windows(num_tokens, room, stride)
  best = squad_data.best_windows(num_tokens, room, stride)
  expected = [reference.most_context(spans, x) for x in range(num_tokens)]
  assert best.tolist() == expected, (num_tokens, room, stride)


@pytest.mark.parametrize("room", [1, 2, 3, 7, 10, 50])
def test_best_windows_equal_the_reference(room):
  for num_tokens in range(0, 3 * room + 5):
    for stride in (1, 2, 3, 4, 7, 9, 50, 51):
      check_best_windows(num_tokens, room, stride)


def test_best_windows_where_lengths_outweigh_sides():
  # A hundredth of the length is more than a token where the last window is over
  # a hundred shorter; where it is just that, rounding decides.
  for num_tokens in range(382, 382 + 128, 3):
    check_best_windows(num_tokens, 381, 128)
  for room in range(110, 400, 10):
    check_best_windows(room + 28, room, 128)
    check_best_windows(2 * 128 + room - 100, room, 128)


# Reading ----------------------------------------------------------------------


def test_words_end_where_upstream_ends_them():
  words, offsets = squad_data.split_words(" a\tb\r\nc\u202fd\u00a0e\u3000f  g ")
  assert words == ["a", "b", "c", "d\u00a0e\u3000f", "g"]
  assert offsets == [1, 3, 6, 8, 15]


def test_example_knows_the_text_it_is_from(tmp_path):
  context = "  A  b\u00a0c.\nD"
  example = read_one(tmp_path, context, "c.\nD", 7)
  assert example.context == context
  assert example.word_offsets == [2, 5, 10]
  assert example.doc_tokens == ["A", "b\u00a0c.", "D"]
  assert (example.start_position, example.end_position) == (1, 2)
  assert example.answers == [example.orig_answer_text] == ["c.\nD"]


def test_example_made_by_hand_gets_a_text():
  example = SquadExample("q", "why", ["the", "he", "he"])
  assert (example.context, example.word_offsets) == ("the he he", [0, 4, 7])
  assert (example.answers, example.is_impossible) == ([], False)


def test_all_answers_of_a_file_for_prediction(tmp_path):
  answers = [{"text": x, "answer_start": 0} for x in ("a", "a b", "a")]
  data = make_data(
    "a b",
    {"question": "one", "answers": answers},
    {"question": "none", "answers": [], "is_impossible": True},
    {"question": "test file"},
  )
  examples = squad_data.read_squad_examples(write(tmp_path, data), False, True)
  assert [x.answers for x in examples] == [["a", "a b", "a"], [], []]
  assert {(x.start_position, x.end_position) for x in examples} == {(None,) * 2}
  assert {x.orig_answer_text for x in examples} == {None}
  # For prediction upstream does not look at it.
  assert not any(x.is_impossible for x in examples)


def test_is_impossible_counts_with_the_flag_only(tmp_path):
  answers = [{"text": "a", "answer_start": 0}]
  data = make_data(
    "a b", {"question": "?", "answers": answers, "is_impossible": True}
  )
  path = write(tmp_path, data)
  (example,) = squad_data.read_squad_examples(path, True, True)
  assert example.is_impossible and example.answers == []
  assert (example.start_position, example.end_position) == (-1, -1)
  assert example.orig_answer_text == ""
  (example,) = squad_data.read_squad_examples(path, True)
  assert not example.is_impossible and example.start_position == 0


@pytest.mark.parametrize("space", ["\u00a0", "\u2009", "\u3000", "\u2028"])
def test_answer_with_any_space_is_kept(tmp_path, space):
  answer = f"10{space}000"
  context = f"They had {answer} men."
  example = read_one(tmp_path, context, answer, 9)
  assert (example.start_position, example.end_position) == (2, 2)
  with pytest.raises(ValueError, match="no question to use"):
    read_one(tmp_path, context, answer, 9, recover_answers=False)


def test_answer_that_begins_before_the_first_word_is_kept(tmp_path):
  example = read_one(tmp_path, " \n Ann saw it", " Ann saw", 2)
  assert (example.start_position, example.end_position) == (0, 1)
  # In front of another word it belongs to the one before, as upstream has it.
  example = read_one(tmp_path, "Ann  saw it", " saw", 4)
  assert (example.start_position, example.end_position) == (0, 1)


@pytest.mark.parametrize(
  ("answer", "start"),
  [
    *(("Bob", 0), ("saw", 0), ("it", 9), ("it!", 8), (" Ann", -1)),
    *(("", 0), ("", 4), (" ", 3), ("it", 99)),
  ],
)
def test_lost_answer_is_left_out_and_counted(tmp_path, capsys, answer, start):
  data = make_data("Ann saw it", ("?", "it", 8), ("?", answer, start))
  path = write(tmp_path, data)
  examples = squad_data.read_squad_examples(path, True)
  assert [x.qas_id for x in examples] == ["q0"]
  said = capsys.readouterr().out
  assert f"{path}: 1 of 2 questions left out" in said
  assert f"question 'q1': {answer!r} at {start}" in said


def test_many_lost_answers_are_not_all_listed(tmp_path, capsys):
  data = make_data("Ann saw it", ("?", "it", 8), *[("?", "x", 0)] * 9)
  squad_data.read_squad_examples(write(tmp_path, data), True)
  said = capsys.readouterr().out
  assert "9 of 10 questions" in said and said.count("question 'q") == 5
  assert said.endswith("...\n")


def test_nothing_is_said_when_all_is_well(tmp_path, capsys):
  read_one(tmp_path, "Ann saw it", "saw", 4)
  assert capsys.readouterr().out == ""


def test_file_with_byte_order_mark(tmp_path):
  path = tmp_path / "bom.json"
  data = make_data("Ann saw it", ("?", "saw", 4))
  path.write_text(json.dumps(data), encoding="utf-8-sig")
  assert len(squad_data.read_squad_examples(str(path), True)) == 1


def test_missing_file():
  with pytest.raises(FileNotFoundError, match="nowhere.json: no such file"):
    squad_data.read_squad_examples("nowhere.json", True)


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (b'{"data": [\n{"paragraphs": oops', "line 2, column 16: not valid JSON"),
    (b'{"data": [', "line 1, column 11: not valid JSON"),
    (b"", "line 1, column 1: not valid JSON"),
    (
      b'{"data":\n\n"caf\xe9"}',
      "line 3: not valid JSON (not utf-8, byte 0xe9)",
    ),
    (b"[" * 100000, "not valid JSON"),
    (b'{"data": ' + b"9" * 5000 + b"}", "not valid JSON"),
    (b"[1]", "should be an object, not [1]"),
    (b'{"dat": []}', "the key 'data' is missing among ['dat']"),
    (b'{"data": {}}', "'data' should be a list, not {}"),
    (b'{"data": []}', "holds no question"),
    (b'{"data": [null]}', "article 1: the value with the key 'paragraphs'"),
  ],
)
def test_malformed_file(tmp_path, content, words):
  path = tmp_path / "bad.json"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=re.escape(words)) as error:
    squad_data.read_squad_examples(str(path), True)
  assert type(error.value) is ValueError
  assert str(error.value).startswith(str(path))
  assert "\n" not in str(error.value)


QUESTION = ("data", 1, "paragraphs", 1, "qas", 1)
ANSWER = (*QUESTION, "answers", 0)
MISSING = object()


@pytest.mark.parametrize(
  ("where", "value", "place"),
  [
    (("data", 1, "paragraphs"), MISSING, "article 2: the key 'paragraphs'"),
    (("data", 1, "paragraphs"), "x", "article 2: 'paragraphs' should be"),
    (QUESTION[:4], [], "paragraph 2: the value with the key 'context'"),
    ((*QUESTION[:4], "context"), MISSING, "article 2, paragraph 2: the key"),
    ((*QUESTION[:4], "context"), 5, "paragraph 2: 'context' should be a text"),
    ((*QUESTION[:4], "qas"), MISSING, "article 2, paragraph 2: the key 'qas'"),
    (QUESTION, 7, "question number 2: the value with the key 'id'"),
    ((*QUESTION, "id"), MISSING, "paragraph 2, question number 2: the key"),
    ((*QUESTION, "id"), 3, "question number 2: 'id' should be a text, not 3"),
    ((*QUESTION, "question"), MISSING, "question 'q1': the key 'question'"),
    ((*QUESTION, "question"), None, "'q1': 'question' should be a text"),
    ((*QUESTION, "answers"), MISSING, "question 'q1': the key 'answers' is"),
    ((*QUESTION, "answers"), {}, "question 'q1': 'answers' should be a list"),
    ((*QUESTION, "answers"), [], "exactly one answer, there are 0; give it"),
    ((*QUESTION, "answers"), [1, 2], "exactly one answer, there are 2; keep"),
    (
      ANSWER,
      "it",
      "question 'q1': the value with the key 'text' should be an object",
    ),
    ((*ANSWER, "text"), MISSING, "question 'q1': the key 'text' is missing"),
    ((*ANSWER, "text"), 8, "question 'q1': 'text' should be a text"),
    ((*ANSWER, "answer_start"), MISSING, "'q1': the key 'answer_start' is"),
    ((*ANSWER, "answer_start"), "8", "'answer_start' should be a whole number"),
    ((*ANSWER, "answer_start"), True, "'answer_start' should be a whole"),
    ((*QUESTION, "is_impossible"), MISSING, "the key 'is_impossible' is"),
    (
      (*QUESTION, "is_impossible"),
      0,
      "'is_impossible' should be true or false",
    ),
  ],
)
def test_mistake_in_a_file(tmp_path, where, value, place):
  data = make_data("Ann saw it", *[("?", "it", 8)] * 2)
  for question in data["data"][0]["paragraphs"][0]["qas"]:
    question["is_impossible"] = False
  data["data"][0]["paragraphs"] *= 2
  data["data"] = copy.deepcopy(data["data"] * 2)
  data = json.loads(json.dumps(data))
  *path, last = where
  target = data
  for key in path:
    target = target[key]
  if value is MISSING:
    del target[last]
  else:
    target[last] = value
  file = write(tmp_path, data)
  with pytest.raises(ValueError, match=re.escape(place)) as error:
    squad_data.read_squad_examples(file, True, version_2_with_negative=True)
  message = str(error.value)
  assert message.startswith(f"{file}, article 2") and "\n" not in message


def test_prediction_checks_answers_that_are_there(tmp_path):
  data = make_data("a", {"question": "?", "answers": [{"txt": "a"}]})
  with pytest.raises(ValueError, match="question 'q0': the key 'text' is"):
    squad_data.read_squad_examples(write(tmp_path, data), False)


# Edges of windows -------------------------------------------------------------


def tokens_of(windows, tokenizer):
  return [
    tokenizer.convert_ids_to_tokens(windows.sequences.ids(i).tolist())
    for i in range(len(windows))
  ]


def answer_tokens(windows, tokenizer):
  """The tokens trained on, for each window."""
  return [
    tokens[first : last + 1]
    for tokens, first, last in zip(
      tokens_of(windows, tokenizer),
      windows.start_positions,
      windows.end_positions,
      strict=True,
    )
  ]


@pytest.mark.parametrize(
  ("answer", "start"), [("John", 0), ("1895", 20), ("John built the 1895", 0)]
)
def test_answer_at_an_edge(tmp_path, tokenizer, answer, start):
  context = "John built the " + " " * 5 * (start > 0) + "1895"
  example = read_one(tmp_path, context, answer, start)
  windows = windows_of([example], tokenizer, is_training=True)
  assert answer_tokens(windows, tokenizer) == [answer.lower().split()]


def test_answer_is_found_within_its_words(tmp_path, tokenizer):
  context = "John Smith (1861-1943)."
  example = read_one(tmp_path, context, "1943", 17)
  windows = windows_of([example], tokenizer, is_training=True)
  assert answer_tokens(windows, tokenizer) == [["1943"]]
  # Part of a piece: the whole word, as upstream.
  example = read_one(tmp_path, context, "mith", 6)
  windows = windows_of([example], tokenizer, is_training=True)
  assert answer_tokens(windows, tokenizer) == [["smith"]]


def test_windows_without_the_answer_train_on_nothing(tmp_path, tokenizer):
  context = "the " * 20 + "bridge " + "the " * 20
  example = read_one(tmp_path, context, "bridge", 80)
  windows = windows_of([example], tokenizer, (14, 5, 4), True)
  has_answer = windows.start_positions > 0
  assert has_answer.sum() == 2 < len(windows)
  for found, tokens in zip(
    has_answer, answer_tokens(windows, tokenizer), strict=True
  ):
    assert tokens == (["bridge"] if found else ["[CLS]"])
  assert not windows.is_impossible.any()


def test_impossible_question_trains_on_nothing(tokenizer):
  example = SquadExample("q", "by", ["the"] * 30, "", -1, -1, True)
  windows = windows_of([example], tokenizer, (14, 5, 4), True)
  assert len(windows) > 2 and windows.is_impossible.all()
  assert not windows.start_positions.any() and not windows.end_positions.any()


def test_texts_without_a_token_have_no_window(tokenizer):
  examples = [
    SquadExample("empty", "by", []),
    SquadExample("zero width", "by", ["\u200b", "\u200b"]),
    SquadExample("one", "by", ["\u200b", "the"]),
  ]
  windows = windows_of(examples, tokenizer)
  assert windows.num_examples == 3
  assert windows.example_index.tolist() == [2]
  assert windows.word_index.tolist() == [1]
  none = windows_of(examples[:2], tokenizer)
  assert len(none) == 0 and none.word_starts.tolist() == [0]
  assert none.unique_ids.tolist() == [] and none.num_examples == 2


def test_empty_contexts_of_a_file(tmp_path, tokenizer):
  questions = [{"question": "?", "answers": []}]
  for context in ("", " \n "):
    path = write(tmp_path, make_data(context, *questions))
    examples = squad_data.read_squad_examples(path, False)
    assert (examples[0].doc_tokens, examples[0].context) == ([], context)
    assert len(windows_of(examples, tokenizer)) == 0


def test_question_without_a_token(tokenizer):
  windows = windows_of([SquadExample("q", " \u200b", ["the"])], tokenizer)
  assert tokens_of(windows, tokenizer) == [["[CLS]", "[SEP]", "the", "[SEP]"]]
  assert windows.first_doc_token.tolist() == [2]


def test_long_question_is_cut(tokenizer):
  example = SquadExample("q", "John Smith built the bridge", ["the"])
  windows = windows_of([example], tokenizer, (64, 32, 2))
  (tokens,) = tokens_of(windows, tokenizer)
  assert tokens == ["[CLS]", "john", "smith", "[SEP]", "the", "[SEP]"]


def test_windows_of_one_token(tokenizer):
  example = SquadExample("q", "by", ["the", "bridge", "by"])
  windows = windows_of([example], tokenizer, (5, 128, 1))
  assert [x[3] for x in tokens_of(windows, tokenizer)] == example.doc_tokens
  assert windows.is_max_context.all()
  assert windows.doc_span_index.tolist() == [0, 1, 2]


def test_question_that_leaves_no_room(tokenizer):
  example = SquadExample("q7", "John Smith built", ["the"])
  with pytest.raises(ValueError, match="'q7' has 3 tokens and leaves no room"):
    windows_of([example], tokenizer, (6, 128, 64))
  assert len(windows_of([example], tokenizer, (7, 128, 64))) == 1


@pytest.mark.parametrize("doc_stride", [0, -1])
def test_stride_that_never_arrives(tokenizer, doc_stride):
  with pytest.raises(ValueError, match=f"doc_stride is {doc_stride}"):
    windows_of([], tokenizer, (64, doc_stride, 16))


def test_nothing_is_tokenised_twice(tokenizer, monkeypatch):
  seen = []
  align = squad_data.align_pieces
  monkeypatch.setattr(
    squad_data, "align_pieces", lambda *x: seen.append(x[0]) or align(*x)
  )
  sentence = "bridge" * 40  # Too long to be remembered as a word.
  words = ["the", "bridge", "the", sentence, "bridge", "by", "the"]
  examples = [SquadExample(str(i), "by", words) for i in range(3)]
  examples += [SquadExample("other", "by", ["bridge", "the"])]
  windows_of(examples, tokenizer)
  assert sorted(seen) == ["bridge", sentence, "by", "the"]


class Words(list):
  """A list that can be asked whether it still lives."""


def test_examples_may_come_one_by_one(tokenizer):
  # Lists are known by their place in memory, which must not be used again.
  born = []

  def one_by_one():
    for word in ["the", "bridge", "by"]:
      words = Words([word])
      born.append(weakref.ref(words))
      yield SquadExample("q", "by", words)
      del words
    yield SquadExample("q", "by", ["john"])
    assert all(words() for words in born)

  windows = windows_of(one_by_one(), tokenizer)
  found = [x[3] for x in tokens_of(windows, tokenizer)]
  assert found == ["the", "bridge", "by", "john"]


def test_shuffled_questions_of_shared_texts(tmp_path, tokenizer):
  data = json.loads((OWN / "train.json").read_text(encoding="utf-8"))
  examples = squad_data.read_squad_examples(write(tmp_path, data), True)
  random.Random(12345).shuffle(examples)
  together = windows_of(examples, tokenizer, is_training=True)
  for number, example in enumerate(examples):
    alone = windows_of([example], tokenizer, is_training=True)
    mine = together.example_index == number
    assert alone.start_positions.tolist() == (
      together.start_positions[mine].tolist()
    )
    assert len(alone) == mine.sum()


# Characters of pieces ---------------------------------------------------------


def check_characters(examples, windows, tokenizer, step=1):
  """The characters of each piece, tokenised alone, are that piece again."""
  for i in range(0, len(windows), step):
    example = examples[windows.example_index[i]]
    ids = windows.sequences.ids(i)[windows.first_doc_token[i] : -1].tolist()
    span = slice(*windows.word_starts[i : i + 2])
    starts, ends = windows.char_starts[span], windows.char_ends[span]
    words = windows.word_index[span]
    assert (np.diff(starts) >= 0).all() and (starts < ends).all()
    for piece, start, end, word in zip(
      tokenizer.convert_ids_to_tokens(ids), starts, ends, words, strict=True
    ):
      offset = example.word_offsets[word]
      assert offset <= start < end <= offset + len(example.doc_tokens[word])
      text = example.context[start:end]
      written = tokenizer.basic_tokenizer.tokenize(text)
      assert len(written) == 1
      if piece == "[UNK]":
        continue
      if end - start == 1:  # Perhaps a syllable that was divided.
        assert piece.removeprefix("##") in written[0]
      else:
        assert piece.removeprefix("##") == written[0]


def slices(text, tokenizer):
  """(piece, the characters it was made of) for each piece of a text."""
  ids, starts, ends = squad_data.align_pieces(text, tokenizer)
  assert ids == tokenizer.encode(text)
  pieces = tokenizer.convert_ids_to_tokens(ids)
  return [
    (piece, text[start:end])
    for piece, start, end in zip(pieces, starts, ends, strict=True)
  ]


def test_pieces_of_plain_words(tmp_path):
  tokenizer = make_tokenizer(tmp_path, ["un", "##built", "(", ")", "##s"])
  assert slices("(UNbuilts)x!", tokenizer) == [
    *(("(", "("), ("un", "UN"), ("##built", "built"), ("##s", "s")),
    *((")", ")"), ("[UNK]", "x"), ("[UNK]", "!")),
  ]


def test_pieces_keep_the_accents_they_lost(tmp_path):
  tokenizer = make_tokenizer(tmp_path, ["cafe", "##s", "istanbul", "strasse"])
  assert slices("caf\u00e9s", tokenizer) == [
    ("cafe", "caf\u00e9"),
    ("##s", "s"),
  ]
  assert slices("cafe\u0301s", tokenizer) == [
    *(("cafe", "cafe\u0301"), ("##s", "s")),
  ]
  assert slices("\u0130stanbul", tokenizer) == [("istanbul", "\u0130stanbul")]
  assert slices("stra\u00dfe", tokenizer) == [("[UNK]", "stra\u00dfe")]


def test_pieces_of_unspaced_scripts(tmp_path):
  words = ["\u5317", "\u4eac", "\u0e01\u0e19", "##\u0e17", "\u3053", "##\u3093"]
  tokenizer = make_tokenizer(tmp_path, words)
  assert slices("\u5317\u4eac\u3002", tokenizer) == [
    *(("\u5317", "\u5317"), ("\u4eac", "\u4eac"), ("[UNK]", "\u3002")),
  ]
  # Thai vowel signs above the line are accents to BERT and stay with the text.
  assert slices("\u0e01\u0e34\u0e19\u0e17\u0e35\u0e48", tokenizer) == [
    *(
      ("\u0e01\u0e19", "\u0e01\u0e34\u0e19"),
      ("##\u0e17", "\u0e17\u0e35\u0e48"),
    ),
  ]
  assert slices("\u3053\u3093", tokenizer) == [
    *(("\u3053", "\u3053"), ("##\u3093", "\u3093")),
  ]


def test_pieces_of_a_divided_syllable_share_it(tmp_path):
  words = ["\u1112\u1161", "##\u11ab", "##\u1100\u116e\u11a8"]
  tokenizer = make_tokenizer(tmp_path, words)
  assert slices("\ud55c\uad6d", tokenizer) == [
    *((words[0], "\ud55c"), ("##\u11ab", "\ud55c")),
    ("##\u1100\u116e\u11a8", "\uad6d"),
  ]


def test_pieces_beside_what_is_deleted(tmp_path):
  tokenizer = make_tokenizer(tmp_path, ["ab", "##c", "d"])
  assert slices("\u200ba\u200bb\u00adc\u00a0d\u200b", tokenizer) == [
    *(("ab", "a\u200bb"), ("##c", "c"), ("d", "d")),
  ]


def test_pieces_of_a_final_sigma(tmp_path):
  tokenizer = make_tokenizer(tmp_path, ["\u03bf\u03c3", "##\u03bf\u03c2"])
  assert slices("\u039f\u03a3\u039f\u03a3", tokenizer) == [
    *(("\u03bf\u03c3", "\u039f\u03a3"), ("##\u03bf\u03c2", "\u039f\u03a3")),
  ]


def test_pieces_that_cannot_be_followed_have_all(tmp_path):
  # NFD swaps the two marks, and both stay, being of category Mc.
  tokenizer = make_tokenizer(tmp_path, ["a"])
  text = "a\u302e\U0001d165x"
  (found,) = tokenizer.basic_tokenizer.tokenize(text)
  assert found != text
  assert slices(text + ".", tokenizer) == [("[UNK]", text + ".")] * 2


def test_pieces_of_a_cased_vocabulary(tmp_path):
  words = ["Caf", "##\u00e9", "e", "##\u0301"]
  tokenizer = make_tokenizer(tmp_path, words, do_lower_case=False)
  assert slices("Caf\u00e9", tokenizer) == [
    ("Caf", "Caf"),
    ("##\u00e9", "\u00e9"),
  ]
  assert slices("e\u0301", tokenizer) == [("e", "e"), ("##\u0301", "\u0301")]


def test_pieces_of_a_word_too_long(tmp_path):
  tokenizer = make_tokenizer(tmp_path, ["z", "##z", "."])
  assert slices("z" * 201 + ".", tokenizer) == [
    ("[UNK]", "z" * 201),
    (".", "."),
  ]


@pytest.mark.parametrize("do_lower_case", [True, False])
def test_characters_of_the_excerpt(do_lower_case):
  tokenizer = tokenization.FullTokenizer(OWN / "vocab.txt", do_lower_case)
  path = str(OWN / "train.json")
  examples = squad_data.read_squad_examples(path, False)
  windows = windows_of(examples, tokenizer)
  check_characters(examples, windows, tokenizer)


def test_chinese_answer_is_an_exact_slice(tmp_path):
  context = "\u5317\u4eac\u662f\u4e2d\u56fd\u7684\u9996\u90fd\u3002\u5f88\u5927"
  tokenizer = make_tokenizer(tmp_path, sorted(set(context)))
  example = read_one(tmp_path, context, "\u4e2d\u56fd", 3)
  # To upstream the sentence is one word; the span is found among its pieces.
  assert (example.start_position, example.end_position) == (0, 0)
  windows = windows_of([example], tokenizer, is_training=True)
  first, last = (
    int(x[0]) - int(windows.first_doc_token[0])
    for x in (windows.start_positions, windows.end_positions)
  )
  start, end = windows.char_starts[first], windows.char_ends[last]
  assert context[start:end] == "\u4e2d\u56fd"


# The cache --------------------------------------------------------------------


SETTINGS = {"max_seq_length": 64, "doc_stride": 32, "is_training": True}


@pytest.fixture
def files(tmp_path):
  data = tmp_path / "data.json"
  data.write_bytes((OWN / "train.json").read_bytes())
  vocab = tmp_path / "vocab.txt"
  vocab.write_bytes((OWN / "vocab.txt").read_bytes())
  return data, vocab


@pytest.fixture
def windows(tokenizer):
  path = str(OWN / "train.json")
  examples = squad_data.read_squad_examples(path, True)
  return windows_of(examples, tokenizer, is_training=True)


def assert_same(found, expected):
  arrays, others = vars(found).copy(), vars(expected).copy()
  for name in ("flat_ids", "lengths", "num_first", "starts"):
    arrays[name] = getattr(found.sequences, name)
    others[name] = getattr(expected.sequences, name)
  assert arrays.keys() == others.keys()
  del arrays["sequences"], others["sequences"]
  for name, array in arrays.items():
    np.testing.assert_array_equal(array, others[name], strict=True)


def test_windows_come_back_from_the_cache(tmp_path, windows):
  path = str(tmp_path / "w.npz")
  squad_data.save_windows(path, windows, "key")
  assert_same(squad_data.load_windows(path, "key"), windows)
  assert os.listdir(tmp_path) == ["w.npz"]


def test_no_windows_come_back_from_the_cache(tmp_path, tokenizer):
  path = str(tmp_path / "w.npz")
  none = windows_of([SquadExample("q", "by", [])], tokenizer)
  squad_data.save_windows(path, none, "key")
  assert_same(squad_data.load_windows(path, "key"), none)


def test_types_are_as_declared(windows):
  for field in dataclasses.fields(squad_data.Windows):
    value = getattr(windows, field.name)
    if isinstance(value, np.ndarray):
      kind = re.search(rf"{field.name}: (\w+) \[", squad_data.Windows.__doc__)
      assert value.dtype == kind.group(1), field.name


def test_other_key_or_no_file_gives_nothing(tmp_path, windows, capsys):
  path = str(tmp_path / "w.npz")
  assert squad_data.load_windows(path, "key") is None
  squad_data.save_windows(path, windows, "key")
  assert squad_data.load_windows(path, "other") is None
  assert capsys.readouterr().out == ""


def test_key_is_of_contents(files, tmp_path):
  data, vocab = files
  key = squad_data.cache_key(data, vocab, SETTINGS)
  assert re.fullmatch("[0-9a-f]{64}", key)
  copied = tmp_path / "copy.json"
  copied.write_bytes(data.read_bytes())
  os.utime(copied, (1, 1))
  reordered = dict(reversed(SETTINGS.items()))
  assert squad_data.cache_key(copied, vocab, reordered) == key


def test_key_changes_with_everything(files, monkeypatch):
  data, vocab = files
  keys = [squad_data.cache_key(data, vocab, SETTINGS)]
  for name, value in SETTINGS.items():
    changed = {**SETTINGS, name: value + 1}
    keys.append(squad_data.cache_key(data, vocab, changed))
  for file in files:
    content = file.read_bytes()
    file.write_bytes(content.replace(b"bridge", b"ridges"))
    assert file.read_bytes() != content
    keys.append(squad_data.cache_key(data, vocab, SETTINGS))
    file.write_bytes(content)
  keys.append(squad_data.cache_key(vocab, data, SETTINGS))
  monkeypatch.setattr(squad_data, "_CACHE_VERSION", 0)
  keys.append(squad_data.cache_key(data, vocab, SETTINGS))
  assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
  "damage",
  [
    lambda content: b"",
    lambda content: content[: len(content) // 2],
    lambda content: content[:-1],
    lambda content: b"no zip file at all",
    lambda content: content[len(content) // 3 :],
  ],
)
def test_damaged_cache_is_made_again(tmp_path, windows, capsys, damage):
  path = tmp_path / "w.npz"
  squad_data.save_windows(str(path), windows, "key")
  content = path.read_bytes()
  path.write_bytes(damage(content))
  found = squad_data.cached_windows(str(path), "key", lambda: windows)
  assert found is windows
  assert f"{path} is damaged and is made again" in capsys.readouterr().out
  assert_same(squad_data.load_windows(str(path), "key"), windows)


def test_a_flipped_byte_is_noticed_or_harmless(tmp_path, windows, capsys):
  path = tmp_path / "w.npz"
  squad_data.save_windows(str(path), windows, "key")
  content = path.read_bytes()
  positions = range(0, len(content), 41)
  for position in positions:
    flipped = bytearray(content)
    flipped[position] ^= 0x5A
    path.write_bytes(flipped)
    found = squad_data.load_windows(str(path), "key")
    if found is not None:  # A time stamp, say.
      assert_same(found, windows)
  noticed = capsys.readouterr().out.count("is damaged")
  assert noticed > 0.8 * len(positions)


def test_cache_is_used_only_with_its_key(tmp_path, windows):
  path = str(tmp_path / "w.npz")
  calls = []

  def build():
    calls.append(1)
    return windows

  for key, expected in (("a", 1), ("a", 1), ("b", 2), ("b", 2), ("a", 3)):
    assert_same(squad_data.cached_windows(path, key, build), windows)
    assert len(calls) == expected


def test_killed_writing_leaves_the_old_cache(tmp_path, windows, monkeypatch):
  path = str(tmp_path / "w.npz")
  squad_data.save_windows(path, windows, "old")

  def die(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, "replace", die)
  with pytest.raises(KeyboardInterrupt):
    squad_data.save_windows(path, windows, "new")
  assert_same(squad_data.load_windows(path, "old"), windows)


# Upstream's functions ---------------------------------------------------------


def features_of(example, tokenizer, is_training):
  features = []
  squad_data.convert_examples_to_features(
    examples=[example],
    tokenizer=tokenizer,
    max_seq_length=8,
    doc_stride=2,
    max_query_length=2,
    is_training=is_training,
    output_fn=features.append,
  )
  return features


def test_input_features(tokenizer):
  words = ["the", "old", "(bridge)"]
  example = SquadExample("q", "who built", words, "bridge", 2, 2)
  first, second = features_of(example, tokenizer, True)
  assert second == squad_data.InputFeatures(
    unique_id=1000000001,
    example_index=0,
    doc_span_index=1,
    tokens="[CLS] who built [SEP] ( bridge ) [SEP]".split(),
    token_to_orig_map={4: 2, 5: 2, 6: 2},
    token_is_max_context={4: False, 5: True, 6: True},
    input_ids=tokenizer.convert_tokens_to_ids(second.tokens),
    input_mask=[1] * 8,
    segment_ids=[0, 0, 0, 0, 1, 1, 1, 1],
    start_position=5,
    end_position=5,
    is_impossible=False,
  )
  assert first.token_is_max_context == {4: True, 5: True, 6: True}
  assert (first.start_position, first.end_position) == (0, 0)
  json.dumps(dataclasses.asdict(second))  # Python's numbers, not NumPy's.
  (short,) = features_of(SquadExample("q", "who", ["the"]), tokenizer, False)
  assert (short.start_position, short.end_position) == (None, None)
  assert short.input_mask == [1, 1, 1, 1, 1, 0, 0, 0]
  assert short.segment_ids == [0, 0, 0, 1, 1, 0, 0, 0]
  assert short.input_ids[5:] == [0, 0, 0]


def test_feature_file_is_there_when_complete(tmp_path, tokenizer):
  path = tmp_path / "eval.tf_record"
  example = SquadExample("q", "who built", ["the", "bridge"], "", -1, -1, True)
  for is_training in (False, True):
    writer = squad_data.FeatureWriter(str(path), is_training)
    for feature in features_of(example, tokenizer, is_training):
      writer.process_feature(feature)
    assert not path.exists()
    writer.close()
    (record,) = parsed_records(str(path))
    assert writer.num_features == 1 and writer.filename == str(path)
    names = ["input_ids", "input_mask", "segment_ids", "unique_ids"]
    if is_training:
      names += ["start_positions", "end_positions", "is_impossible"]
      assert record["is_impossible"] == [1]
    assert sorted(record) == sorted(names)
    path.unlink()


# Odd bytes


@pytest.mark.parametrize(
  "odd",
  ["", "\0", "a\0b", "a\rb\r", "\ud800", "x" * 1_000_000, "\u0301" * 100_000],
  ids=range(7),
)
def test_an_odd_paragraph_leaves_its_neighbours_alone(tmp_path, tokenizer, odd):
  data = make_data("It was in 1969.", ("When?", "1969", 10))
  path = tmp_path / "data.json"
  paragraphs = data["data"][0]["paragraphs"]
  paragraphs.append(copy.deepcopy(paragraphs[0]))
  path.write_text(json.dumps(data))
  alone = squad_data.read_squad_examples(str(path), is_training=False)
  question = {"id": "odd", "question": f"{odd[:99]}?", "answers": []}
  paragraphs.insert(1, {"context": odd, "qas": [question]})
  path.write_text(json.dumps(data))
  found = squad_data.read_squad_examples(str(path), is_training=False)
  windows = windows_of(found, tokenizer)
  assert found[1].context == odd
  assert [found[0], found[2]] == alone
  expected = windows_of(alone, tokenizer)
  last = windows.sequences.ids(len(windows) - 1).tolist()
  assert last == expected.sequences.ids(1).tolist()
  assert (windows.sequences.ids(0) == expected.sequences.ids(0)).all()


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path):
  path = tmp_path / "data.json"
  text = json.dumps(make_data("It was in 1969.", ("When?", "1969", 10)))
  path.write_bytes(b"\xef\xbb\xbf" + text.encode())
  (example,) = squad_data.read_squad_examples(str(path), is_training=True)
  assert example.orig_answer_text == "1969"
