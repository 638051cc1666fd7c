"""Words for masks, scores of texts and next sentences: library and script."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  Its ops are in the exports.

import model_export_test
import modeling
import run_fill_mask
import tokenization
from bert_keras3.console import conversation
from bert_keras3.console import start
from bert_keras3.serving import export
from bert_keras3.serving import mask_filling
from bert_keras3.serving import mask_models
from bert_keras3.serving import predictor
from bert_keras3.training import configs
from bert_keras3.weights import checkpoints
from bert_keras3.weights import companions

ROOT = os.path.dirname(run_fill_mask.__file__)
VOCAB = model_export_test.VOCAB
MASK_ID = VOCAB.index("[MASK]")
# The same model throughout; its table of embeddings has three rows too many.
model = model_export_test.model
export_dir = model_export_test.export_dir
tokenizer = model_export_test.tokenizer
TEXTS = [
  "the cats sat on the mat.",
  ("a cat", "the mat, a mat"),
  "cat",
  ("the [cat]", "a"),
  "é cat sat on a mat",
]
MASKED = ["the [MASK] sat", ("a [MASK]", "[MASK] mat [MASK]"), "[MASK]"]
# float32 sums in another order, since batches have other shapes.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
  """A directory with the model's checkpoint, config and vocabulary."""
  return write_model(model, tmp_path_factory.mktemp("model"))


def write_model(model, path, leave_out=()):
  (path / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
  (path / "bert_config.json").write_text(model.config.to_json_string())
  weights = {
    name: value
    for name, value in modeling.named_variables(model).items()
    if not name.startswith(tuple(leave_out))
  }
  checkpoints.save(str(path / "bert_model.ckpt"), weights)
  return str(path)


def open_folder(
  folder, max_seq_length=12, special_tokens_in_text="keep", batch_size=32
):
  config = configs.WeightsConfig(
    init_checkpoint=folder,
    do_lower_case=False,
    max_seq_length=max_seq_length,
    special_tokens_in_text=special_tokens_in_text,
  )
  return mask_models.from_checkpoint(config, batch_size)


@pytest.fixture(scope="module")
def filler(folder):
  return open_folder(folder, batch_size=3)


def make_filler(tokenizer, logits, **options):
  """A MaskFiller of a function from a batch to masked_lm_logits."""
  return mask_filling.MaskFiller(
    tokenizer, lambda batch: {"masked_lm_logits": logits(batch)}, **options
  )


@pytest.fixture(scope="module")
def keeping(folder):
  return tokenization.FullTokenizer(f"{folder}/vocab.txt", False, "keep")


def ask_directly(model, first, second=()):
  """Probabilities of the model at every place of tokens put in by name.

  Args:
    model: modeling.BertPretrainer.
    first: list of str.
    second: list of str, of segment 1.

  Returns:
    (float64 [tokens, vocab_size], float64 [2]).
  """
  tokens = ["[CLS]", *first, "[SEP]"]
  segments = [0] * len(tokens)
  if second:
    tokens += [*second, "[SEP]"]
    segments += [1] * (len(second) + 1)
  outputs = model(
    {
      "input_ids": tf.constant([[VOCAB.index(x) for x in tokens]]),
      "input_mask": tf.ones([1, len(tokens)], tf.int32),
      "segment_ids": tf.constant([segments]),
      "masked_lm_positions": tf.range(len(tokens))[tf.newaxis],
    }
  )
  names = ("masked_lm_logits", "next_sentence_logits")
  exps = [np.exp(outputs[x].numpy()[0].astype(np.float64)) for x in names]
  return [x / x.sum(axis=-1, keepdims=True) for x in exps]


# Masks ------------------------------------------------------------------------


def check_masks(masks, shares):
  """That a text's masks have the tokens of the rows of `shares`."""
  for found, row in zip(masks, shares, strict=True):
    best = np.argsort(-row[: len(VOCAB)])[: len(found)]
    assert [x["token"] for x in found] == [VOCAB[i] for i in best]
    values = [x["probability"] for x in found]
    assert values == pytest.approx(row[best].tolist(), abs=TOLERANCE)


def test_masks_get_the_models_likeliest_tokens(filler, model):
  found = filler.fill_mask(MASKED, top_k=4)
  assert [x["text"] for x in found] == ["the [MASK] sat", "a [MASK]", "[MASK]"]
  shares, _ = ask_directly(model, ["the", "[MASK]", "sat"])
  check_masks(found[0]["masks"], shares[[2]])
  shares, _ = ask_directly(model, ["a", "[MASK]"], ["[MASK]", "mat", "[MASK]"])
  check_masks(found[1]["masks"], shares[[2, 4, 6]])
  assert found[1]["text_pair"] == "[MASK] mat [MASK]"
  shares, _ = ask_directly(model, ["[MASK]"])
  check_masks(found[2]["masks"], shares[[1]])
  assert all(len(x["masks"][0]) == 4 for x in found)
  assert "text_pair" not in found[0]


def test_rows_beyond_the_vocabulary_are_no_tokens(keeping):
  logits = np.arange(len(VOCAB) + 3, dtype=np.float32)  # The last ones win.
  filler = make_filler(
    keeping, lambda batch: np.tile(logits, [1, 1, 1]), max_seq_length=9
  )
  (result,) = filler.fill_mask(["[MASK]"], top_k=99)
  (tokens,) = result["masks"]
  assert [x["token"] for x in tokens] == [*VOCAB[::-1]]
  # Their share of the probability stays theirs.
  share = np.exp(-3.0) * (1 - np.exp(-1.0))
  assert tokens[0]["probability"] == pytest.approx(share, rel=1e-3)


def test_the_best_tokens_fill_the_text(keeping):
  def logits(batch):
    best = np.array([VOCAB.index(x) for x in ("cat", "##s", "é")])
    places = np.arange(batch["masked_lm_positions"].shape[1])
    return np.eye(len(VOCAB), dtype=np.float32)[best[places]][np.newaxis] * 9

  filler = make_filler(keeping, logits, max_seq_length=20)
  (result,) = filler.fill_mask([("The  [MASK] [MASK]!", "x [MASK].")])
  assert result["filled"] == "The  cats!"
  assert result["filled_pair"] == "x é."


def test_masks_beyond_the_limit_are_named(filler):
  (result,) = filler.fill_mask(["[MASK] " + "the " * 10 + "[MASK]"])
  assert [len(tokens) for tokens in result["masks"]] == [5, 0]
  assert result["tokens_left_out"] == 2
  assert result["filled"].endswith("the [MASK]")
  text = ("the " * 8 + "[MASK]", "the [MASK] the the")  # 12 - 3: 5 and 4
  (result,) = filler.fill_mask([text])
  assert [len(tokens) for tokens in result["masks"]] == [0, 5]
  # All of them; nothing is left to ask the model.
  (result,) = filler.fill_mask(["the " * 10 + "[MASK]"])
  assert result["masks"] == [[]]


def test_texts_without_masks_are_refused(filler, tokenizer):
  with pytest.raises(ValueError, match=r"no \[MASK\] to fill in 'the cat'"):
    filler.fill_mask(["[MASK]", "the cat"])
  splitting = make_filler(tokenizer, None, max_seq_length=9)
  with pytest.raises(
    ValueError, match="tokenizer splits .* with special_tokens"
  ):
    splitting.fill_mask(["[MASK]"])
  for call in (filler.fill_mask, filler.pseudo_log_likelihood):
    with pytest.raises(ValueError, match="pass a list of texts"):
      call("[MASK]")
    with pytest.raises(ValueError, match="a str or two of them"):
      call([("a", "b", "c")])


def test_no_texts(filler):
  assert filler.fill_mask([]) == []
  assert filler.pseudo_log_likelihood([]) == []
  assert filler.next_sentence([]) == []


# Scores -----------------------------------------------------------------------


def score_naively(model, parts):
  """Log-probability of every token, masked alone, one model call each."""
  scores = []
  for part, tokens in enumerate(parts):
    for number, token in enumerate(tokens):
      masked = [list(x) for x in parts]
      masked[part][number] = "[MASK]"
      place = 1 + number + part * (len(parts[0]) + 1)
      shares, _ = ask_directly(model, *masked)
      scores.append(np.log(shares[place][VOCAB.index(token)]))
  return scores


def test_scores_are_those_of_one_token_at_a_time(filler, model):
  tokens = [
    (["the", "cat", "##s", "sat", "on", "the", "mat", "."],),
    (["a", "cat"], ["the", "mat", ",", "a", "mat"]),
    (["cat"],),
    (["the", "[", "cat", "]"], ["a"]),
    (["é", "cat", "sat", "on", "a", "mat"],),
  ]
  found = filler.pseudo_log_likelihood(TEXTS)
  for result, parts in zip(found, tokens, strict=True):
    assert [x["token"] for x in result["tokens"]] == sum(parts, [])
    scores = score_naively(model, parts)
    values = [x["log_probability"] for x in result["tokens"]]
    assert values == pytest.approx(scores, abs=TOLERANCE)
    total = pytest.approx(sum(scores), abs=TOLERANCE * len(scores))
    assert result["log_likelihood"] == total
    mean = np.mean(scores)
    assert result["mean_log_likelihood"] == pytest.approx(mean, abs=TOLERANCE)
    assert result["pseudo_perplexity"] == pytest.approx(np.exp(-mean), rel=1e-4)


def test_copies_of_several_texts_share_batches_by_length(keeping):
  batches = []

  def logits(batch):
    batches.append(batch)
    size = len(batch["input_ids"])
    return np.zeros([size, 1, len(VOCAB)], np.float32)

  filler = make_filler(keeping, logits, max_seq_length=12, batch_size=4)
  found = filler.pseudo_log_likelihood(TEXTS)
  assert [x["text"] for x in found] == [
    x if isinstance(x, str) else x[0] for x in TEXTS
  ]
  counts = [len(x["tokens"]) for x in found]
  assert counts == [8, 7, 1, 5, 6]
  sizes = [len(x["input_ids"]) for x in batches]
  assert sizes == [4] * 6 + [3]
  lengths = [x["input_mask"].sum(axis=1).tolist() for x in batches]
  assert sum(lengths, []) == sorted([3] + [8] * 11 + [10] * 15)
  for batch, columns in zip(batches, lengths, strict=True):
    assert batch["input_ids"].shape[1] == max(columns)
    assert ((batch["input_ids"] == MASK_ID).sum(axis=1) == 1).all()
    masked = np.take_along_axis(
      batch["input_ids"], batch["masked_lm_positions"], axis=1
    )
    assert (masked == MASK_ID).all()


def test_brackets_are_words_if_split(folder):
  splitting = open_folder(folder, special_tokens_in_text="split")
  (result,) = splitting.pseudo_log_likelihood(["a [MASK] [SEP]"])
  tokens = ["a", "[", "[UNK]", "]", "[", "[UNK]", "]"]
  assert [x["token"] for x in result["tokens"]] == tokens


def test_special_tokens_are_scored_if_kept(filler, model):
  (result,) = filler.pseudo_log_likelihood(["a [SEP] cat"])
  assert [x["token"] for x in result["tokens"]] == ["a", "[SEP]", "cat"]
  values = [x["log_probability"] for x in result["tokens"]]
  scores = score_naively(model, (["a", "[SEP]", "cat"],))
  assert values == pytest.approx(scores, abs=TOLERANCE)


def test_texts_that_have_no_score(filler):
  with pytest.raises(ValueError, match=r"\[MASK\] has no likelihood"):
    filler.pseudo_log_likelihood(["a [MASK]"])
  with pytest.raises(ValueError, match="no token to score in '\\\\x00 '"):
    filler.pseudo_log_likelihood(["a", "\x00 "])


# Next sentences ---------------------------------------------------------------


def test_pairs_are_scored_as_the_model_does(filler, model):
  found = filler.next_sentence([("the cats", "sat"), ("a", "a mat .")])
  pairs = [(["the", "cat", "##s"], ["sat"]), (["a"], ["a", "mat", "."])]
  for result, pair in zip(found, pairs, strict=True):
    _, shares = ask_directly(model, *pair)
    assert result["is_next"] == pytest.approx(shares[0], abs=TOLERANCE)
  assert found[0]["text_pair"] == "sat"
  score = filler.next_sentence_score("the cats", "sat")
  assert score == pytest.approx(found[0]["is_next"], abs=TOLERANCE)
  with pytest.raises(ValueError, match="not the one text 'a'"):
    filler.next_sentence([("a", "b"), "a"])


# Models -----------------------------------------------------------------------


def test_a_checkpoint_may_lack_what_is_not_needed(filler, model, tmp_path):
  # Of Hugging Face's masked-LM models.
  path = write_model(model, tmp_path, ["bert/pooler", "cls/seq_relationship"])
  found = open_folder(path)
  assert found.fill_mask(MASKED) == filler.fill_mask(MASKED)
  with pytest.raises(
    ValueError, match="has no bert/pooler/dense/kernel, which"
  ):
    found.next_sentence_score("a", "b")


@pytest.mark.parametrize(
  ("left_out", "task", "others"),
  [
    ("cls/predictions", "fill_mask", ["next_sentence"]),
    ("cls/predictions", "pseudo_log_likelihood", ["next_sentence"]),
    ("cls/seq_relationship", "next_sentence", ["pseudo_log_likelihood"]),
    ("bert/pooler", "next_sentence", ["pseudo_log_likelihood"]),
  ],
)
def test_heads_that_are_missing(model, tmp_path, left_out, task, others):
  found = open_folder(write_model(model, tmp_path, [left_out]))
  with pytest.raises(ValueError, match=f"the checkpoint has no {left_out}"):
    getattr(found, task)([("a", "[MASK]")])
  for other in others:
    assert len(getattr(found, other)([("a", "cat")])) == 1


def test_a_length_the_model_has_no_positions_for(folder):
  assert open_folder(folder, max_seq_length=None).max_seq_length == 32
  with pytest.raises(ValueError, match="--max_seq_length=33 exceeds"):
    open_folder(folder, max_seq_length=33)


def test_an_export_answers_as_the_checkpoint_does(filler, export_dir):
  found = mask_filling.from_export(export_dir, batch_size=3)
  assert found.max_seq_length == 12
  masked = zip(found.fill_mask(MASKED), filler.fill_mask(MASKED), strict=True)
  for ours, theirs in masked:
    assert ours["filled"] == theirs["filled"]
    pairs = zip(ours["masks"], theirs["masks"], strict=True)
    for one, other in pairs:
      assert [x["token"] for x in one] == [x["token"] for x in other]
      values = [x["probability"] for x in other]
      assert [x["probability"] for x in one] == pytest.approx(values, abs=1e-6)
  scored = zip(
    found.pseudo_log_likelihood(TEXTS),
    filler.pseudo_log_likelihood(TEXTS),
    strict=True,
  )
  for ours, theirs in scored:
    # Logarithms of numbers that are equal to about 1e-6 of themselves.
    mean = theirs["mean_log_likelihood"]
    assert ours["mean_log_likelihood"] == pytest.approx(
      mean, rel=1e-6, abs=1e-6
    )
  pair = ("the cat", "a mat")
  score = filler.next_sentence_score(*pair)
  assert found.next_sentence_score(*pair) == pytest.approx(score, abs=1e-6)


def test_an_export_answers_as_its_own_signatures_do(export_dir):
  found = mask_filling.from_export(export_dir)
  texts = model_export_test.TEXTS
  texts = [x for x in texts if "[MASK]" in x]
  expected = predictor.Predictor(export_dir).predict(texts)
  ours = found.fill_mask(texts, export.MASK_TOP_K)
  for result, other in zip(ours, expected, strict=True):
    for one, row in zip(result["masks"], other["masks"], strict=True):
      assert [x["token"] for x in one] == [x["token"] for x in row]
      values = [x["probability"] for x in row]
      assert [x["probability"] for x in one] == pytest.approx(values, abs=1e-6)
  loaded = tf.saved_model.load(export_dir)
  is_next = loaded.signatures["pair"](
    text=tf.constant(["the cats"]), text_pair=tf.constant(["a mat"])
  )["is_next"]
  score = found.next_sentence_score("the cats", "a mat")
  assert score == pytest.approx(float(is_next[0]), abs=1e-6)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (
      {"kind": "classifier", "labels": [], "problem_type": ""},
      "holds a classifier, which has no masked-LM head",
    ),
    ({"inputs": {"serving_default": ["text"]}}, "export it again"),
    ({}, "--max_seq_length=13 exceeds that of .*; use 12 or less"),
  ],
)
def test_exports_that_are_of_no_use(export_dir, tmp_path, changes, words):
  description = {
    **predictor.read_description(export_dir).to_dict(),
    **changes,
  }
  path = tmp_path / predictor.DESCRIPTION_FILE
  path.parent.mkdir()
  path.write_text(json.dumps(description))
  with pytest.raises(ValueError, match=words):
    mask_filling.from_export(str(tmp_path), max_seq_length=13)


# The script -------------------------------------------------------------------


def make_config(**options):
  return run_fill_mask.FillMaskConfig(**options)


@pytest.mark.parametrize(
  ("options", "given", "words"),
  [
    ({"text": ["a"]}, [], "either --init_checkpoint or --export_dir"),
    (
      {"text": ["a"], "init_checkpoint": "x", "export_dir": "y"},
      [],
      "either --init_checkpoint or --export_dir",
    ),
    ({"init_checkpoint": "x"}, [], "one of --text, --input_file and --inter"),
    (
      {"init_checkpoint": "x", "text": ["a"], "interactive": True},
      [],
      "one of --text, --input_file and --inter",
    ),
    (
      {
        "init_checkpoint": "x",
        "text": ["a"],
        "special_tokens_in_text": "split",
      },
      [],
      "=split makes words and brackets of .MASK.",
    ),
    (
      {"init_checkpoint": "x", "interactive": True, "output_file": "y"},
      [],
      "--output_file is not for --interactive",
    ),
    (
      {"export_dir": "x", "text": ["a"]},
      ["do_lower_case"],
      "--do_lower_case is part of an export",
    ),
    ({"export_dir": "nowhere", "text": ["a"]}, [], "nowhere is no export"),
    (
      {"init_checkpoint": "x", "text": ["a"], "output_file": "/nowhere/y"},
      [],
      "no directory that can be written to",
    ),
  ],
)
def test_flags_that_do_not_go_together(options, given, words):
  with pytest.raises((ValueError, OSError), match=words):
    run_fill_mask.check_flags(make_config(**options, given=frozenset(given)))


@pytest.mark.parametrize(
  "name",
  [
    "vocab.txt",
    "bert_config.json",
    "bert_model.ckpt.index",
    "bert_model.ckpt.data-00000-of-00001",
  ],
)
def test_the_models_own_files_are_not_overwritten(folder, name):
  config = make_config(
    init_checkpoint=folder, text=["[MASK]"], output_file=f"{folder}/{name}"
  )
  run_fill_mask.check_flags(config)
  with pytest.raises(ValueError, match=f"/{name} is also .* an input; rename"):
    run_fill_mask.fill_masks(config, [])


@pytest.mark.parametrize(
  "name", [predictor.VOCAB_FILE, "saved_model.pb", "variables/variables.index"]
)
def test_an_exports_own_files_are_not_overwritten(export_dir, name):
  config = make_config(
    export_dir=export_dir, text=["[MASK]"], output_file=f"{export_dir}/{name}"
  )
  with pytest.raises(ValueError, match=f"/{name} is also .* an input; rename"):
    run_fill_mask.check_flags(config)


@pytest.mark.parametrize(
  ("weights", "own", "others"),
  [
    (
      ["m-1.index", "m-1.data-00000-of-00002", "m-1.data-00001-of-00002"],
      ["m-1.json", "checkpoint"],
      ["m-10.index", "m-1.jsonl", "m-1.data.txt"],
    ),
    (["model.safetensors"], [], ["model.safetensors.jsonl"]),
    (
      ["model.safetensors.index.json", "model-00001-of-00001.safetensors"],
      [],
      ["results.json"],
    ),
  ],
)
def test_what_a_models_own_files_are(tmp_path, weights, own, others):
  folder = tmp_path / "[1]"
  folder.mkdir()
  beside = ["bert_config.json", "labels.txt", "vocab.txt"]
  for name in [*weights, *own, *others, *beside]:
    (folder / name).touch()
  place = folder / "m-1" if own else folder
  found = companions.list_files(str(place))
  found = {os.path.basename(x) for x in found if os.path.exists(x)}
  assert found == {*weights, *own, *beside}
  own_config = str(folder / others[0])
  found = companions.list_files(str(place), own_config)
  assert own_config in found


def test_lines_are_texts_or_pairs(tmp_path, monkeypatch):
  lines = "a [MASK]\r\na ||| b ||| [MASK]\n\u2028[MASK]||| b\n[MASK] ||| \n"
  path = tmp_path / "lines.txt"
  path.write_bytes(lines.encode())
  name = str(path)
  expected = ["a [MASK]", ("a ||| b", "[MASK]"), "[MASK]||| b", "[MASK] |||"]
  found = run_fill_mask.read_texts(make_config(input_file=name))
  assert [text for _, text in found] == expected
  assert found[1][0] == f"{name}, line 2"
  monkeypatch.setattr("sys.stdin", io.StringIO(lines))
  found = run_fill_mask.read_texts(make_config(input_file="-"))
  assert [text for _, text in found] == expected
  texts = ["[MASK]\ud800", "[MASK]\na ||| b"]
  found = run_fill_mask.read_texts(make_config(text=texts))
  assert found == [("--text 1", "[MASK]?"), ("--text 2", ("[MASK]\na", "b"))]


@pytest.mark.parametrize(
  ("options", "line", "words"),
  [
    ({}, "a mask", "a.txt, line 2: there is no .MASK. to fill in 'a mask'"),
    ({}, "", "a.txt, line 2: blank line; remove it"),
    ({"task": "score"}, " ", "line 2: blank line; remove it"),
    ({"task": "next_sentence"}, "", "line 2: blank line; remove it"),
    ({"task": "score"}, "a [MASK]", "line 2: .MASK. has no likelihood"),
    ({"task": "next_sentence"}, "a", "line 2: there should be two texts"),
    ({"task": "next_sentence"}, "a |||  ", "line 2: there should be two texts"),
  ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, options, line, words):
  first = "a ||| b" if options else "a [MASK]"
  path = tmp_path / "a.txt"
  path.write_text(f"{first}\n{line}\n")
  with pytest.raises(ValueError, match=words):
    run_fill_mask.read_texts(make_config(input_file=str(path), **options))


def test_a_file_without_texts(tmp_path):
  path = tmp_path / "a.txt"
  path.touch()
  with pytest.raises(ValueError, match="a.txt has no text"):
    run_fill_mask.read_texts(make_config(input_file=str(path)))


def ask(filler, texts, **options):
  config = make_config(text=texts, **options)
  texts = run_fill_mask.read_texts(config)
  results = run_fill_mask.answer(config, filler, texts)
  run_fill_mask.write_results(config, results)


@pytest.mark.parametrize(
  ("task", "method", "texts"),
  [
    ("fill_mask", "fill_mask", ["a [MASK]", "é ||| [MASK]"]),
    ("score", "pseudo_log_likelihood", ["é", "a ||| cat"]),
    ("next_sentence", "next_sentence", ["é ||| a", "a ||| cat"]),
  ],
)
def test_a_json_line_for_each_text(
  filler, tmp_path, capsys, task, method, texts
):
  ask(filler, texts, task=task, output_format="jsonl")
  lines = capsys.readouterr().out.splitlines()
  expected = [tuple(x.split(" ||| ")) for x in texts]
  assert list(map(json.loads, lines)) == getattr(filler, method)(expected)
  assert any("é" in line for line in lines)
  path = tmp_path / "out.jsonl"
  ask(filler, texts, task=task, output_format="jsonl", output_file=str(path))
  assert path.read_text(encoding="utf-8").splitlines() == lines
  assert os.listdir(tmp_path) == ["out.jsonl"]


def test_tables(filler, capsys):
  ask(filler, ["a [MASK]", "cat ||| [MASK]"], top_k=2)
  lines = capsys.readouterr().out.splitlines()
  one, other = filler.fill_mask(["a [MASK]", ("cat", "[MASK]")], top_k=2)
  best = one["masks"][0][0]
  assert lines[:3] == [
    "a [MASK]",
    "  [MASK] 1",
    f"      {best['probability']:.4f}  {best['token']}",
  ]
  assert lines[4:6] == [f"  = {one['filled']}", "cat ||| [MASK]"]
  assert lines[9] == f"  = cat ||| {other['filled_pair']}"
  ask(filler, ["a cat"], task="score")
  head, row = capsys.readouterr().out.splitlines()
  (score,) = filler.pseudo_log_likelihood(["a cat"])
  values = dict(zip(head.split(), row.split(maxsplit=4), strict=True))
  assert values["text"] == "a cat"
  assert values["tokens"] == "2"
  assert float(values["sum"]) == pytest.approx(
    score["log_likelihood"], abs=1e-3
  )
  ask(filler, ["a ||| cat"], task="next_sentence")
  assert capsys.readouterr().out.splitlines()[1].endswith("  a ||| cat")


def test_an_error_names_the_text_and_has_no_table(
  filler, model, tmp_path, capsys
):
  words = "^--text 2: there is no token to score in '.u200b'"
  with pytest.raises(ValueError, match=words) as caught:
    ask(filler, ["a", "\u200b"], task="score")
  assert start.is_users_mistake(caught.value)
  assert capsys.readouterr().out == ""
  headless = open_folder(write_model(model, tmp_path, ["cls/seq_relationship"]))
  with pytest.raises(ValueError, match="the checkpoint has no cls/seq_rel"):
    ask(headless, ["a ||| cat"], task="next_sentence")
  assert capsys.readouterr().out == ""


def test_what_is_cut_off_is_told(filler, capsys):
  ask(filler, ["[MASK]", "the " * 10 + "[MASK]"])
  captured = capsys.readouterr()
  assert captured.err == (
    "warning: --text 2: 1 tokens beyond --max_seq_length=12 were left out, 1 "
    "[MASK] among them\n"
  )
  assert "  [MASK] 1  (left out)" in captured.out
  ask(filler, ["the " * 11], task="score")
  assert capsys.readouterr().err == (
    "warning: --text 1: 1 tokens beyond --max_seq_length=12 were left out\n"
  )


def test_a_long_file_is_scored_some_texts_at_a_time(monkeypatch):
  sizes = []

  class Model:
    def pseudo_log_likelihood(self, texts):
      sizes.append(len(texts))
      return [{"text": x, "tokens_left_out": 0} for x in texts]

  monkeypatch.setitem(run_fill_mask.TEXTS_PER_CHUNK, "score", 4)
  texts = [(f"line {i}", f"text {i}") for i in range(10)]
  results = run_fill_mask.answer(make_config(task="score"), Model(), texts)
  assert next(results)["text"] == "text 0"
  assert sizes == [4]  # The rest is not asked for yet.
  assert [x["text"] for x in results] == [f"text {i}" for i in range(1, 10)]
  assert sizes == [4, 4, 2]


def test_a_conversation(filler, capsys):
  lines = iter(["[MASK] cat", "", "no mask", "the [MASK]"])
  prompts = []

  def read_line(prompt):
    prompts.append(prompt)
    for line in lines:
      return line
    raise EOFError

  config = make_config(top_k=1)
  conversation.answer_lines(
    lambda line: run_fill_mask.answer_line(config, filler, line), read_line
  )
  assert prompts == ["text: "] * 5
  found = capsys.readouterr().out.splitlines()
  assert found[0] == "[MASK] cat"
  assert found[4] == "error: there is no [MASK] to fill in 'no mask'"
  assert found[5] == "the [MASK]"
  config = make_config(task="score")
  answer = run_fill_mask.answer_line(config, filler, "\u200b")
  assert answer == "error: there is no token to score in '\\u200b'"


def test_mistyped_weights_are_what_is_told_about(tmp_path):
  with pytest.raises(FileNotFoundError, match="no checkpoint at .*/nowhere"):
    open_folder(str(tmp_path / "nowhere"))


def run_script(*flags, **options):
  return subprocess.run(
    [sys.executable, f"{ROOT}/run_fill_mask.py", *flags],
    capture_output=True,
    text=True,
    check=False,
    **options,
  )


def test_a_dry_run_tries_a_sample_and_writes_nothing(folder, tmp_path):
  lines = tmp_path / "lines.txt"
  lines.write_text("a [MASK]\n" * 99)
  output = tmp_path / "out.txt"
  result = run_script(
    f"--init_checkpoint={folder}",
    f"--input_file={lines}",
    f"--output_file={output}",
    "--dry_run",
  )
  assert result.stdout.startswith("examples: 99, 64 of them tried\ntime: ")
  assert result.stdout.endswith("\nverdict: ready\n")
  assert not output.exists()


def test_mistakes_are_one_sentence_before_the_model_is_opened(export_dir):
  result = run_script("--init_checkpoint=/nowhere", "--text=a mask")
  assert result.returncode == 1
  assert result.stderr == (
    "run_fill_mask: error: --text 1: there is no [MASK] to fill in 'a mask'\n"
  )
  result = run_script(
    f"--export_dir={export_dir}", "--text=x", "--vocab_file=v"
  )
  assert result.stderr == (
    "run_fill_mask: error: --vocab_file is part of an export; leave it out\n"
  )


def test_the_script_as_a_whole(folder, filler):
  flags = ("--nodo_lower_case", "--max_seq_length=12", "--output_format=jsonl")
  result = run_script(
    f"--init_checkpoint={folder}", "--input_file=-", *flags, input="a [MASK]\n"
  )
  assert result.returncode == 0, result.stderr
  assert json.loads(result.stdout) == filler.fill_mask(["a [MASK]"])[0]


# Hugging Face -----------------------------------------------------------------


@pytest.mark.parity
def test_masks_and_scores_equal_those_of_transformers(tmp_path):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  torch.manual_seed(0)
  theirs = transformers.BertForMaskedLM(
    transformers.BertConfig(
      vocab_size=len(VOCAB) + 3,
      hidden_size=32,
      num_hidden_layers=2,
      num_attention_heads=2,
      intermediate_size=64,
      max_position_embeddings=32,
    )
  ).eval()
  for parameter in theirs.parameters():
    torch.nn.init.normal_(parameter, std=0.3)
  theirs.save_pretrained(tmp_path)
  (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
  ours = open_folder(str(tmp_path), max_seq_length=None)

  def ask_torch(tokens, segments):
    with torch.no_grad():
      logits = theirs(
        input_ids=torch.tensor([[VOCAB.index(x) for x in tokens]]),
        token_type_ids=torch.tensor([segments]),
      ).logits[0]
    return torch.softmax(logits.double(), -1).numpy()

  tokens = ["[CLS]", "a", "[MASK]", "[SEP]", "[MASK]", "mat", "[SEP]"]
  shares = ask_torch(tokens, [0, 0, 0, 0, 1, 1, 1])
  (result,) = ours.fill_mask([("a [MASK]", "[MASK] mat")])
  check_masks(result["masks"], shares[[2, 4]])

  tokens = ["[CLS]", "the", "cat", "##s", "[SEP]", "sat", ".", "[SEP]"]
  segments = [0] * 5 + [1] * 3
  scores = []
  for place in (1, 2, 3, 5, 6):
    masked = [*tokens[:place], "[MASK]", *tokens[place + 1 :]]
    share = ask_torch(masked, segments)[place]
    scores.append(np.log(share[VOCAB.index(tokens[place])]))
  (result,) = ours.pseudo_log_likelihood([("the cats", "sat.")])
  values = [x["log_probability"] for x in result["tokens"]]
  assert values == pytest.approx(scores, abs=1e-4)  # Two libraries' float32.
  with pytest.raises(ValueError, match="the checkpoint has no bert/pooler"):
    ours.next_sentence_score("a", "cat")
