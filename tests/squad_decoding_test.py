"""Decoding against upstream's outputs and a plain copy of its algorithm."""

import json
import math
import string

import numpy as np
import pytest

import reference_squad
import tokenization
from bert_keras3.tasks import squad_data
from bert_keras3.tasks import squad_decoding

# The original's exponentials were of Python's math module, ours are NumPy's.
PROBABILITY_TOLERANCE = 1e-6
# Both sides of the tests without goldens run on this machine: rounding only.
TOLERANCE = 1e-12

LETTERS = string.ascii_letters + string.digits
# Words with a "q" are unknown, and longer ones with an "x" but in front.
PIECES = [x for x in LETTERS if x not in "qQ"]
INNER_PIECES = [f"##{x}" for x in LETTERS if x not in "qQxX"]
WORDS = ["the", "The", "old", "bridge", "##dge", "was", "built", "##ilt"]
OTHERS = [*string.punctuation, *"北京是中国的首都大城市人口ภาษไทย한국ᄒ"]
OTHERS += [f"##{x}" for x in "าษไทยᅡᆫ한국"] + ["é", "##é", "##e", "##に", "こ"]


def run_names():
  return [f"dev11_s384_{x}" for x in range(4)] + [
    *(f"dev20_s384_{x}" for x in range(5)),
    *(f"dev20_s96_{x}" for x in range(2)),
  ]


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory):
  """Two tokenizers of a small vocabulary, by do_lower_case."""
  path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
  special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  tokens = [*special, *PIECES, *INNER_PIECES, *WORDS, *OTHERS]
  path.write_text("\n".join(dict.fromkeys(tokens)), encoding="utf-8")
  return {
    casing: tokenization.FullTokenizer(str(path), casing)
    for casing in (True, False)
  }


@pytest.fixture(scope="session")
def tokenizer(tokenizers):
  return tokenizers[True]


@pytest.fixture(scope="session")
def golden_tokenizer(goldens):
  return tokenization.FullTokenizer(str(goldens / "vocab/vocab.txt"))


def make_example(context, qas_id="q0"):
  words, offsets = squad_data.split_words(context)
  return squad_data.SquadExample(
    qas_id, "who ?", words, context=context, word_offsets=offsets
  )


def make_windows(examples, tokenizer, max_seq_length=64, doc_stride=16):
  return squad_data.make_windows(
    examples, tokenizer, max_seq_length, doc_stride, 16, is_training=False
  )


def random_logits(windows, seed, columns=None, levels=None):
  """Logits, of a few levels only where ties are wanted."""
  columns = columns or int(windows.sequences.lengths.max())
  rng = np.random.default_rng(seed)
  shape = [2, len(windows), columns]
  if levels:
    return rng.integers(levels, size=shape).astype(np.float32)
  return rng.normal(0, 4, shape).astype(np.float32)


def point_at(windows, start, end, number=0):
  """Logits of one span: document tokens of a window, the last included."""
  columns = int(windows.sequences.lengths.max())
  logits = np.full([2, len(windows), columns], -10, np.float32)
  first = windows.first_doc_token[number]
  for side, token in enumerate((start, end)):
    logits[side, number, first + token] = 10
  return logits


def decode(examples, windows, logits, tokenizer, **flags):
  config = squad_decoding.DecodingConfig(**flags)
  return squad_decoding.decode(examples, windows, *logits, tokenizer, config)


def decode_slowly(examples, windows, logits, tokenizer, **flags):
  return reference_squad.decode(
    examples,
    reference_squad.features_by_example(windows, tokenizer.inv_vocab),
    *np.float64(logits).tolist(),
    squad_decoding.DecodingConfig(**flags),
  )


def assert_nbest_equal(found, expected, tolerance):
  """Texts exactly; the numbers within a tolerance."""
  assert list(found) == list(expected)
  for qas_id in expected:
    texts = [entry["text"] for entry in expected[qas_id]]
    assert [entry["text"] for entry in found[qas_id]] == texts, qas_id
    for ours, theirs in zip(found[qas_id], expected[qas_id], strict=True):
      assert list(ours) == list(theirs)
      for name in ("probability", "start_logit", "end_logit"):
        assert isinstance(ours[name], float)
        assert ours[name] == pytest.approx(theirs[name], abs=tolerance)


def assert_as_reference(examples, windows, logits, tokenizer, **flags):
  found = decode(examples, windows, logits, tokenizer, **flags)
  predictions, nbest, null_odds = decode_slowly(
    examples, windows, logits, tokenizer, **flags
  )
  assert_nbest_equal(found.nbest, nbest, TOLERANCE)
  assert found.predictions == predictions
  # The same additions in the same order: exact.
  assert found.null_odds == null_odds
  return found


# Upstream's outputs -----------------------------------------------------------


def read_json(path):
  return json.loads(path.read_text(encoding="utf-8"))


def golden_case(goldens, tokenizer, name):
  """Examples, Windows, logits and flags of one of the recorded runs."""
  meta = read_json(goldens / "squad/meta.json")
  run = next(x for x in meta["prediction_runs"] if x["out"] == name)
  features = meta["sets"][run["features"]]
  examples = squad_data.read_squad_examples(
    str(goldens / "inputs/squad" / features["file"]), is_training=False
  )
  windows = squad_data.make_windows(
    examples,
    tokenizer,
    features["max_seq_length"],
    features["doc_stride"],
    features["max_query_length"],
    is_training=False,
  )
  arrays = np.load(goldens / f"squad/predictions/{run['features']}_logits.npz")
  assert arrays["unique_ids"].tolist() == windows.unique_ids.tolist()
  logits = (arrays["start_logits"], arrays["end_logits"])
  flags = {x: run[x] for x in squad_decoding.DecodingConfig().__dict__}
  return examples, windows, logits, flags


@pytest.mark.parametrize("name", run_names())
def test_upstreams_outputs(goldens, golden_tokenizer, name):
  *case, flags = golden_case(goldens, golden_tokenizer, name)
  found = decode(*case, golden_tokenizer, **flags)
  outputs = {
    path.name.removeprefix(f"{name}_"): read_json(path)
    for path in (goldens / "squad/predictions").glob(f"{name}_*.json")
  }
  assert found.predictions == outputs["predictions.json"]
  assert list(found.predictions) == list(outputs["predictions.json"])
  assert_nbest_equal(
    found.nbest, outputs["nbest_predictions.json"], PROBABILITY_TOLERANCE
  )
  null_odds = outputs.get("null_odds.json", {})
  assert list(found.null_odds) == list(null_odds)
  assert found.null_odds == pytest.approx(null_odds, abs=PROBABILITY_TOLERANCE)


@pytest.mark.parametrize("name", run_names())
def test_the_reference_is_upstreams_algorithm(goldens, golden_tokenizer, name):
  *case, flags = golden_case(goldens, golden_tokenizer, name)
  predictions, nbest, _ = decode_slowly(*case, golden_tokenizer, **flags)
  folder = goldens / "squad/predictions"
  assert predictions == read_json(folder / f"{name}_predictions.json")
  expected = read_json(folder / f"{name}_nbest_predictions.json")
  assert_nbest_equal(nbest, expected, PROBABILITY_TOLERANCE)


def test_upstreams_crash_is_no_answer(goldens, golden_tokenizer):
  *case, flags = golden_case(goldens, golden_tokenizer, "dev20_s384_5")
  found = decode(*case, golden_tokenizer, **flags)
  without = [x for x in found.nbest if len(found.nbest[x]) == 1]
  assert 0 < len(without) < len(found.nbest)
  assert {found.predictions[x] for x in without} == {""}
  # With the best of 20 starts and ends the same questions have null odds; no
  # span has a lower score than the one that was assumed here.
  more = decode(*case, golden_tokenizer, **{**flags, "n_best_size": 20})
  for qas_id in without:
    assert found.null_odds[qas_id] >= more.null_odds[qas_id]
  json.dumps(found.null_odds, allow_nan=False)


def test_final_texts(goldens):
  path = goldens / "squad/get_final_text.jsonl"
  cases = [json.loads(x) for x in path.read_text("utf-8").splitlines()]
  for case in cases:
    for casing, name in ((True, "lower"), (False, "cased")):
      found = squad_decoding.get_final_text(
        case["pred_text"], case["orig_text"], casing
      )
      assert found == case[name], case
      found = reference_squad.final_text(
        case["pred_text"], case["orig_text"], casing
      )
      assert found == case[name], case
  assert len(cases) == 27


def test_softmax_and_best_indexes(goldens):
  cases = read_json(goldens / "squad/softmax_and_best_indexes.json")
  for case in cases:
    scores = np.array(case["scores"], np.float64)
    for count in (3, 50):
      found = squad_decoding.best_indexes(scores[np.newaxis], count)
      assert found[0].tolist() == case[f"best_{count}"]
    sizes = [len(scores)] if len(scores) else []
    found = squad_decoding._softmax(scores, sizes)
    assert found.tolist() == pytest.approx(case["softmax"], abs=TOLERANCE)
  assert len(cases) == 6


# Upstream's algorithm ---------------------------------------------------------


@pytest.mark.parametrize(
  ("pred_text", "orig_text", "expected"),
  [
    ("steve smith", "Steve Smith's", "Steve Smith"),
    ("steve smith", "Steve  Smith's", "Steve  Smith"),
    ("old", "(the-old).", "old"),
    # The first of several.
    ("the", "the-the", "the"),
    # Found in the middle of a word, although it was its end.
    ("e", "eve", "e"),
    ("cafe", "Café,", "Café"),
    # Characters lost and gained.
    ("e", "e\u0301e", "e\u0301e"),
    ("\u1112", "한국", "한국"),
    ("x", "\u200bx", "\u200bx"),
    # Not there.
    ("new", "the old", "the old"),
    ("", "old", "old"),
    ("old", "", ""),
    (" old", "the old", "the old"),
    ("old ", "old man", "old man"),
  ],
)
def test_final_text_by_hand(pred_text, orig_text, expected):
  found = squad_decoding.get_final_text(pred_text, orig_text, True)
  assert found == expected
  assert reference_squad.final_text(pred_text, orig_text, True) == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_best_indexes_are_those_of_a_stable_sort(dtype):
  rng = np.random.default_rng(5)
  for levels in (2, 5, 1000):
    values = rng.integers(levels, size=[50, 40]).astype(dtype)
    values[:20, 25:] = -np.inf
    for count in (1, 2, 15, 39, 40, 50):
      found = squad_decoding.best_indexes(values, count)
      for row, indexes in zip(values.tolist(), found.tolist(), strict=True):
        assert indexes == reference_squad.best_indexes(row, count)


# Words that upstream's rule finds, loses and mistakes, and all white space.
ODD_CONTEXTS = [
  "The old bri-bridge (was built) the-the ab-ab-ab abab old old.",
  "Éa-ea éé e\u0301e \u200bold old\u200b  two\tthe\nold\r\nwas\u202fbuilt",
  "\x07 the \x07old\x07 42\xa0km km\u3000km \x07\x07 X Xa aX Q QQ (Q) a-Q-a.",
  "한국 한국어 de-de [UNK] [MASK] ## ##a a##b the old $3.2 3.2.3.2 o'o'o",
  "  the   İ İstanbul ΑΣ ΣΑΣ ſt ﬁne ＦＵＬＬ ½ ß SS \ufffd\ufffd a\x00b ",
]


@pytest.mark.parametrize("levels", [None, 1, 3, 40])
@pytest.mark.parametrize("is_v2", [False, True])
@pytest.mark.parametrize("casing", [True, False])
def test_odd_words(tokenizers, casing, is_v2, levels):
  examples = [make_example(x, str(i)) for i, x in enumerate(ODD_CONTEXTS * 3)]
  windows = make_windows(examples, tokenizers[True], 24, 5)
  assert len(windows) > 3 * len(examples)
  logits = random_logits(windows, 1, columns=26, levels=levels)
  assert_as_reference(
    examples,
    windows,
    logits,
    tokenizers[True],
    do_lower_case=casing,
    version_2_with_negative=is_v2,
    max_answer_length=8,
  )


@pytest.mark.parametrize("n_best_size", [1, 2, 7, 60])
@pytest.mark.parametrize("max_answer_length", [1, 4, 100])
@pytest.mark.parametrize("levels", [None, 4])
def test_sizes(tokenizer, n_best_size, max_answer_length, levels):
  examples = [make_example(x, str(i)) for i, x in enumerate(ODD_CONTEXTS * 2)]
  windows = make_windows(examples, tokenizer)
  logits = random_logits(windows, 2, levels=levels)
  assert_as_reference(
    examples,
    windows,
    logits,
    tokenizer,
    n_best_size=n_best_size,
    max_answer_length=max_answer_length,
  )


@pytest.mark.parametrize("is_v2", [False, True])
def test_many_spans_of_few_texts(tokenizer, is_v2):
  # The n best are not among the first spans of a window.
  examples = [
    make_example("the " * 40 + "old bridge", "few"),
    make_example(ODD_CONTEXTS[0], "many"),
    make_example("Q " * 30 + "was (Q) built", "unknown"),
  ]
  windows = make_windows(examples, tokenizer)
  for seed in range(5):
    logits = random_logits(windows, seed)
    found = assert_as_reference(
      examples,
      windows,
      logits,
      tokenizer,
      version_2_with_negative=is_v2,
      max_answer_length=2,
      n_best_size=12,
    )
  assert len(found.nbest["few"]) < 12


@pytest.mark.parametrize("is_v2", [False, True])
def test_many_windows_at_a_time_and_few(tokenizer, is_v2, monkeypatch):
  examples = [make_example(x, str(i)) for i, x in enumerate(ODD_CONTEXTS * 2)]
  windows = make_windows(examples, tokenizer, 24, 5)
  logits = random_logits(windows, 3, levels=20)
  case = (examples, windows, logits, tokenizer)
  expected = decode(*case, version_2_with_negative=is_v2)
  for size in (1, 7):
    monkeypatch.setattr(squad_decoding, "_WINDOWS_AT_ONCE", size)
    monkeypatch.setattr(squad_decoding, "_PAIRS_AT_ONCE", 400 * size)
    assert decode(*case, version_2_with_negative=is_v2) == expected


def test_ties_of_scores_that_float32_would_make(tokenizer):
  examples = [make_example("the old bridge")]
  windows = make_windows(examples, tokenizer)
  logits = np.full([2, 1, int(windows.sequences.lengths[0])], -99, np.float32)
  first = int(windows.first_doc_token[0])
  # 2**24 + 1 is 2**24 in float32.
  logits[0, 0, first : first + 2] = 2.0**24, 2.0**24
  logits[1, 0, first : first + 2] = 0, 1
  found = assert_as_reference(
    examples, windows, logits, tokenizer, n_best_size=2
  )
  assert found.predictions == {"q0": "the old"}


def test_padding_takes_part(tokenizer):
  # Padding and the question are among the n best, and thrown out afterwards.
  examples = [make_example("the old bridge was built")]
  windows = make_windows(examples, tokenizer)
  length = int(windows.sequences.lengths[0])
  logits = random_logits(windows, 4, columns=length + 4)
  logits[:, :, length:] = 50
  flags = {"n_best_size": 5}
  found = assert_as_reference(examples, windows, logits, tokenizer, **flags)
  assert len(found.nbest["q0"]) < 5
  # Columns that were not computed do not.
  narrow = logits[:, :, :length]
  logits[:, :, length:] = -np.inf
  assert decode(examples, windows, logits, tokenizer, **flags) == decode(
    examples, windows, narrow, tokenizer, **flags
  )


def test_null_answer_of_the_window_that_gives_it_least(tokenizer):
  examples = [make_example("the old bridge was built " * 4)]
  windows = make_windows(examples, tokenizer, 16, 4)
  logits = random_logits(windows, 5)
  logits[:, :, 0] = [[5, 1, 2, 0.5][:1] * len(windows), [1] * len(windows)]
  logits[:, 2, 0] = -3, 2
  logits[:, 3, 0] = 0, -1
  found = assert_as_reference(
    examples, windows, logits, tokenizer, version_2_with_negative=True
  )
  null = next(x for x in found.nbest["q0"] if not x["text"])
  assert (null["start_logit"], null["end_logit"]) == (-3, 2)


@pytest.mark.parametrize("threshold", [-40.0, -1.0, 0.0, 2.5, 40.0, math.inf])
def test_null_threshold(tokenizer, threshold):
  examples = [make_example(x, str(i)) for i, x in enumerate(ODD_CONTEXTS * 3)]
  windows = make_windows(examples, tokenizer)
  logits = random_logits(windows, 6)
  logits[:, :, 0] += 8
  found = assert_as_reference(
    examples,
    windows,
    logits,
    tokenizer,
    version_2_with_negative=True,
    null_score_diff_threshold=threshold,
  )
  assert found.predictions == squad_decoding.apply_null_threshold(
    found.nbest, found.null_odds, threshold
  )
  num_empty = list(found.predictions.values()).count("")
  assert num_empty == sum(x > threshold for x in found.null_odds.values())
  assert (num_empty == len(examples)) == (threshold == -40)
  assert (num_empty == 0) == (threshold >= 40)


# Where we differ --------------------------------------------------------------


def test_no_valid_span_is_no_answer(tokenizer):
  examples = [make_example("the old bridge was built", x) for x in "ab"]
  windows = make_windows(examples, tokenizer)
  logits = point_at(windows, 1, 2)
  # The end comes before the start, whatever the threshold.
  logits[:, 1] = point_at(windows, 2, 1, number=1)[:, 1]
  logits[:, 1, 0] = 3, 4
  flags = {"n_best_size": 1, "version_2_with_negative": True}
  with pytest.raises(StopIteration):
    decode_slowly(examples, windows, logits, tokenizer, **flags)
  for threshold in (0.0, math.inf):
    found = decode(
      examples,
      windows,
      logits,
      tokenizer,
      null_score_diff_threshold=threshold,
      **flags,
    )
    assert found.predictions == {"a": "old bridge", "b": ""}
    assert found.best["b"] == squad_decoding.Answer("", 1.0, 7.0)
    # The lowest start and the lowest end are -10 each.
    assert found.null_odds["b"] == 27.0
    assert squad_decoding.apply_null_threshold(
      found.nbest, found.null_odds, threshold
    ) == {"a": "old bridge", "b": ""}
  flags = {"n_best_size": 1}
  found = assert_as_reference(examples, windows, logits, tokenizer, **flags)
  assert found.predictions == {"a": "old bridge", "b": "empty"}


def test_empty_contexts(tokenizer):
  examples = [
    make_example(x, str(i)) for i, x in enumerate(["", "old", "\x07"])
  ]
  windows = make_windows(examples, tokenizer)
  assert len(windows) == 1
  logits = point_at(windows, 0, 0)
  found = assert_as_reference(examples, windows, logits, tokenizer)
  assert found.predictions == {"0": "empty", "1": "old", "2": "empty"}
  found = decode(
    examples, windows, logits, tokenizer, version_2_with_negative=True
  )
  assert found.predictions == {"0": "", "1": "old", "2": ""}
  assert found.nbest["0"] == [
    {"text": "", "probability": 1.0, "start_logit": 0.0, "end_logit": 0.0}
  ]
  assert found.null_odds["0"] == found.null_odds["2"] == 1e6
  assert found.best["0"] == squad_decoding.Answer("", 1.0, 0.0)


def test_no_window_at_all(tokenizer):
  examples = [make_example("")]
  windows = make_windows(examples, tokenizer)
  logits = np.zeros([2, 0, 8], np.float32)
  found = decode(examples, windows, logits, tokenizer)
  assert found.predictions == {"q0": "empty"}
  assert decode([], windows, logits, tokenizer).predictions == {}


@pytest.mark.parametrize(
  ("context", "start", "end", "upstreams", "expected"),
  [
    # Upstream's rule works as long as every character is known ...
    ("北京是中国的首都。", 0, 1, "北京", "北京"),
    # ... the answer has no unknown character ...
    ("北京是中国的首都。", 3, 4, "中国", "中国"),
    ("北京是龘国的首都。", 3, 4, "北京是龘国的首都。", "龘国"),
    ("北京是龘国的首都。 大", 6, 9, "北京是龘国的首都。 大", "首都。 大"),
    # ... and none is lost: vowels and tones of Thai,
    ("ภาษีไทยที่", 3, 5, "ภาษีไทยที่", "ไทย"),
    ("ภาษีไทยที่", 2, 2, "ภาษีไทยที่", "ษี"),
    # and what looks like nothing.
    ("北京是\u200b中国的首都。", 0, 1, "北京是\u200b中国的首都。", "北京"),
    # Few such characters may be one word,
    ("国龘 the", 1, 2, "国龘 the", "国龘 the"),
    ("the 龘国", 0, 1, "the 龘国", "the 龘国"),
    # and among Latin ones they are.
    ("北京是中国abcdefQ", 0, 1, "北京", "北京"),
    ("龘京是中国abcdef", 0, 1, "龘京是中国abcdef", "龘京是中国abcdef"),
    # But not so many.
    ("龘" * 17 + "abcdefghijkl", 3, 4, "龘" * 17 + "abcdefghijkl", "龘龘"),
  ],
)
def test_unspaced_scripts(tokenizer, context, start, end, upstreams, expected):
  examples = [make_example(context)]
  windows = make_windows(examples, tokenizer)
  logits = point_at(windows, start, end)
  slow, _, _ = decode_slowly(examples, windows, logits, tokenizer)
  assert slow == {"q0": upstreams}
  found = decode(examples, windows, logits, tokenizer)
  assert found.predictions == {"q0": expected}
  answer = found.best["q0"]
  assert context[answer.start : answer.end] == expected


def test_unspaced_scripts_in_windows_that_begin_within_a_word(tokenizer):
  context = "北京是龘国的首都。" * 6
  examples = [make_example(context)]
  windows = make_windows(examples, tokenizer, 24, 6)
  assert len(windows) > 5
  # In the middle of a window, where the tokens have the most context.
  for number in range(len(windows) - 1):
    logits = point_at(windows, 8, 9, number)
    found = decode(examples, windows, logits, tokenizer)
    answer = found.best["q0"]
    # The place is that of the tokens, not of the first such text.
    begin = 6 * number + 8
    assert (answer.start, answer.end) == (begin, begin + 2)
    assert answer.text == context[begin : begin + 2]


# Answers for a reader ---------------------------------------------------------


@pytest.mark.parametrize(
  ("context", "start", "end", "text", "place"),
  [
    ("the old bridge", 1, 2, "old bridge", (4, 14)),
    ("the (old) bridge.", 2, 4, "old) bridge", (5, 16)),
    # Of two such texts, the one that was meant.
    ("old the old", 2, 2, "old", (8, 11)),
    # White space becomes a blank.
    (" the  old\t\nbridge", 0, 2, "the old bridge", (1, 17)),
    ("the\u202fold bridge", 0, 1, "the old", (0, 7)),
    ("the 42\xa0km", 0, 4, "the 42\xa0km", (0, 9)),
    # Whole words, where the tokens were fewer.
    ("the (Q) old", 2, 2, "(Q)", (4, 7)),
    ("the (Q)  old", 2, 4, "(Q) old", (4, 12)),
  ],
)
def test_places(tokenizer, context, start, end, text, place):
  examples = [make_example(context)]
  windows = make_windows(examples, tokenizer)
  logits = point_at(windows, start, end)
  found = assert_as_reference(examples, windows, logits, tokenizer)
  answer = found.best["q0"]
  assert answer.text == found.predictions["q0"] == text
  assert (answer.start, answer.end) == place


@pytest.mark.parametrize("is_v2", [False, True])
def test_best_is_the_entry_that_is_predicted(tokenizer, is_v2):
  examples = [make_example(x, str(i)) for i, x in enumerate(ODD_CONTEXTS * 3)]
  windows = make_windows(examples, tokenizer)
  logits = random_logits(windows, 7)
  found = decode(
    examples, windows, logits, tokenizer, version_2_with_negative=is_v2
  )
  for example in examples:
    answer = found.best[example.qas_id]
    entries = {x["text"]: x for x in found.nbest[example.qas_id]}
    entry = entries[found.predictions[example.qas_id]]
    assert answer.text == entry["text"]
    assert answer.probability == entry["probability"]
    assert answer.score == entry["start_logit"] + entry["end_logit"]
    if answer.text:
      written = example.context[answer.start : answer.end]
      blanks = written.translate(str.maketrans("\t\r\n\u202f", "    "))
      assert " ".join(x for x in blanks.split(" ") if x) == answer.text
    else:
      assert answer.start is answer.end is None
  assert ("" in found.predictions.values()) == is_v2


def test_results_go_into_json(tokenizer):
  examples = [make_example(x, str(i)) for i, x in enumerate(ODD_CONTEXTS)]
  windows = make_windows(examples, tokenizer)
  found = decode(
    examples,
    windows,
    random_logits(windows, 8),
    tokenizer,
    version_2_with_negative=True,
  )
  for content in (found.predictions, found.nbest, found.null_odds):
    assert json.loads(json.dumps(content)) == content


# Mistakes ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["n_best_size", "max_answer_length"])
def test_sizes_below_one_are_refused(name):
  with pytest.raises(ValueError, match=f"--{name}=0: pass 1 or more"):
    squad_decoding.DecodingConfig(**{name: 0})


def test_logits_of_other_windows_are_refused(tokenizer):
  examples = [make_example("the old bridge", x) for x in "ab"]
  windows = make_windows(examples, tokenizer)
  good = random_logits(windows, 9)
  for logits, message in [
    ((good[0][:1], good[1]), r"shape \(1, \d+\) for 2 windows"),
    ((good[0], good[1][0]), r"for 2 windows"),
    (good[:, :, :-1], "of 9 positions for windows of up to 10 tokens"),
  ]:
    with pytest.raises(ValueError, match=message):
      decode(examples, windows, logits, tokenizer)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
  ("value", "column"), [(np.nan, 5), (np.inf, 5), (-np.inf, 5), (np.nan, 9)]
)
def test_broken_logits_name_the_question(tokenizer, side, value, column):
  examples = [make_example("the old bridge", x) for x in "ab"]
  windows = make_windows(examples, tokenizer)
  logits = random_logits(windows, 10, columns=10)
  logits[side, 1, column] = value
  with pytest.raises(ValueError, match="question 'b': logits that are not fin"):
    decode(examples, windows, logits, tokenizer)


def test_missing_null_odds_are_named():
  nbest = {"a": [], "b": []}
  with pytest.raises(ValueError, match="question 'b' has no null odds"):
    squad_decoding.apply_null_threshold(nbest, {"a": 1.0}, 0.0)
