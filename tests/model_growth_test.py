"""New tokens begin as the mean of their pieces, new positions as copies."""

import numpy as np
import pytest

import tokenization
from bert_keras3.weights import growth as model_growth

TOKENS = [
  "[PAD]",
  "[unused0]",
  "[UNK]",
  "[CLS]",
  "[SEP]",
  "[MASK]",
  "[unused1]",
]
TOKENS += ["a", "##b", "##c", "ab", "-", "[", "]", "e", "##1", "##ab"]


@pytest.fixture
def tokenizer(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join(TOKENS) + "\n")
  return tokenization.FullTokenizer(str(path))


def number(token):
  return TOKENS.index(token)


def plan(tokenizer, *tokens):
  return model_growth.plan_vocab(tokenizer, TOKENS, list(tokens))


def test_unused_places_go_first_then_the_end(tokenizer):
  growth = plan(tokenizer, "abc", "acc", "ab", "abb", "abc")
  end = len(TOKENS)
  assert growth.ids == {
    "abc": number("[unused0]"),
    "acc": number("[unused1]"),
    "abb": end,
  }
  assert growth.lines[number("[unused0]")] == "abc"
  assert growth.lines[end:] == ["abb"]
  assert (growth.num_filled, growth.known) == (2, ["ab"])
  rest = [x for x in range(end) if not TOKENS[x].startswith("[unused")]
  assert [growth.lines[x] for x in rest] == [TOKENS[x] for x in rest]


def test_fewer_tokens_than_unused_places(tokenizer):
  growth = plan(tokenizer, "abc")
  assert len(growth.lines) == len(TOKENS)
  assert (growth.num_filled, growth.lines[number("[unused1]")]) == (
    1,
    "[unused1]",
  )


@pytest.mark.parametrize(
  ("token", "pieces"),
  [
    ("abc", ["ab", "##c"]),
    ("abcb", ["ab", "##c", "##b"]),
    ("##abc", ["##ab", "##c"]),
    ("##cab", ["##c", "##ab"]),
    ("xyz", ["[UNK]"]),
    ("##xyz", ["[UNK]"]),
    ("[E1]", ["[", "e", "##1", "]"]),
  ],
)
def test_pieces(tokenizer, token, pieces):
  growth = plan(tokenizer, token)
  assert list(growth.pieces[token]) == [number(piece) for piece in pieces]


@pytest.mark.parametrize(
  ("token", "words"),
  [
    ("Abc", "never find 'Abc' in a text: it makes 'abc' of it"),
    ("a-b", "makes 'a - b' of it"),
    ("a b", "makes 'a b' of it"),
    ("caf\u00e9", "makes 'cafe' of it"),
    ("\u200b", "makes 'nothing' of it"),
    ("a" * 201, "has 201 characters; words over 200 are"),
  ],
)
def test_what_no_text_holds_is_refused(tokenizer, token, words):
  with pytest.raises(ValueError, match=words):
    plan(tokenizer, token)


def test_every_new_token_is_found_in_a_text(tokenizer, tmp_path):
  growth = plan(tokenizer, "abc", "accc", "##bb", "abb")
  path = tmp_path / "grown.txt"
  path.write_text("\n".join(growth.lines) + "\n")
  grown = tokenization.FullTokenizer(str(path))
  assert grown.tokenize("abc accc abb abbb") == [
    "abc",
    "accc",
    "abb",
    "abb",
    "##b",
  ]
  assert {x: grown.vocab[x] for x in growth.ids} == growth.ids
  assert grown.tokenize("abcbb") == ["abc", "##bb"]


@pytest.mark.parametrize("padding", [0, 2, 5])
def test_rows_are_means_and_the_others_stay(tokenizer, padding):
  """Rows that only fill the table up are used before it grows."""
  rng = np.random.default_rng(0)
  rows = len(TOKENS) + padding
  tensors = {
    model_growth.WORD_EMBEDDINGS: rng.normal(size=[rows, 3]),
    model_growth.OUTPUT_BIAS: rng.normal(size=[rows]),
    "bert/pooler/dense/bias": rng.normal(size=[3]),
  }
  growth = plan(tokenizer, "abc", "acc", "abb", "abcc", "accb")
  grown = model_growth.grow_vocab(tensors, growth)
  assert list(grown) == list(tensors)
  size = max(rows, len(TOKENS) + 3)
  for name in (model_growth.WORD_EMBEDDINGS, model_growth.OUTPUT_BIAS):
    old, new = tensors[name], grown[name]
    assert len(new) == size
    expected = (old[number("ab")] + old[number("##c")]) / 2
    # A mean is rounded once or twice.
    np.testing.assert_allclose(new[growth.ids["abc"]], expected, rtol=1e-12)
    same = [i for i in range(rows) if i not in growth.ids.values()]
    np.testing.assert_array_equal(new[same], old[same])
  same = "bert/pooler/dense/bias"
  np.testing.assert_array_equal(grown[same], tensors[same])


def test_positions_are_repeated():
  table = np.arange(12.0).reshape([4, 3])
  tensors = {model_growth.POSITION_EMBEDDINGS: table, "other": table}
  grown = model_growth.grow_positions(tensors, 10)
  found = grown[model_growth.POSITION_EMBEDDINGS]
  np.testing.assert_array_equal(
    found, np.concatenate([table, table, table[:2]])
  )
  np.testing.assert_array_equal(grown["other"], table)
  with pytest.raises(ValueError, match="the model has 4 already"):
    model_growth.grow_positions(tensors, 3)
