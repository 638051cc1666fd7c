"""Adds words and positions to a pretrained model's arrays.

Words that the vocabulary splits into many pieces get rows of their own, which
begin as the mean of the pieces' rows. Long texts get positions, which begin as
copies of the trained ones. Both are meant to be trained further.
"""

import dataclasses
import re

import numpy as np

import tokenization

WORD_EMBEDDINGS = "bert/embeddings/word_embeddings"
POSITION_EMBEDDINGS = "bert/embeddings/position_embeddings"
OUTPUT_BIAS = "cls/predictions/output_bias"

_UNUSED = re.compile(r"\[unused\d+\]")


@dataclasses.dataclass(frozen=True)
class VocabGrowth:
  """Holds a vocabulary with new tokens, and their ids.

  Attributes:
    lines: list of str, the vocabulary, new tokens included.
    ids: dict from each added token to its id.
    pieces: dict from each added token to the ids of the pieces it was before.
    num_filled: number of tokens that replace an `[unusedN]`.
    known: tokens that were in the vocabulary already.
  """

  lines: list[str]
  ids: dict[str, int]
  pieces: dict[str, list[int]]
  num_filled: int
  known: list[str]


def plan_vocab(tokenizer, lines, tokens):
  """Gives ids to new tokens: those of `[unusedN]` first, then further ones.

  Args:
    tokenizer: tokenization.FullTokenizer of the vocabulary.
    lines: list of str, the vocabulary.
    tokens: list of str, the new tokens.

  Returns:
    VocabGrowth.

  Raises:
    ValueError: the tokenizer would find a token in no text.
  """
  known = [token for token in tokens if token in tokenizer.vocab]
  new = [x for x in dict.fromkeys(tokens) if x not in tokenizer.vocab]
  for token in new:
    _check_can_occur(token, tokenizer)
  lines = [line.strip() for line in lines]
  unused = [i for i, line in enumerate(lines) if _UNUSED.fullmatch(line)]
  free_ids = [*unused, *range(len(lines), len(lines) + len(new))]
  ids = dict(zip(new, free_ids, strict=False))
  lines = lines + [None] * (len(new) - len(unused))
  for token, number in ids.items():
    lines[number] = token
  return VocabGrowth(
    lines=lines,
    ids=ids,
    pieces={token: _pieces(token, tokenizer) for token in new},
    num_filled=min(len(unused), len(new)),
    known=known,
  )


def _check_can_occur(token, tokenizer):
  """Refuses a token that normalisation or WordPiece would take apart."""
  word = token.removeprefix("##")
  is_special = bool(tokenization.find_special_tokens([token]))
  words = tokenizer.basic_tokenizer.tokenize(word)
  if not is_special and words != [word]:
    made = " ".join(words) or "nothing"
    raise ValueError(
      f"the tokenizer would never find {token!r} in a text: it makes {made!r} "
      "of it; give it as it is after lower-casing and splitting at punctuation"
    )
  limit = tokenizer.wordpiece_tokenizer.max_input_chars_per_word
  if len(word) > limit:
    raise ValueError(
      f"{token!r} has {len(word)} characters; words over {limit} are [UNK]"
    )


def _pieces(token, tokenizer):
  """Returns the ids of the pieces that a new token was split into before."""
  if not token.startswith("##"):
    return tokenizer.encode(token)
  inside = {x: n for x, n in tokenizer.vocab.items() if x.startswith("##")}
  # The first piece of a "##" token is inside a word, too.
  vocab = {**inside, **{x.removeprefix("##"): n for x, n in inside.items()}}
  splitter = tokenization.WordpieceTokenizer(vocab)
  pieces = splitter.split_word(token.removeprefix("##"))
  return [vocab.get(piece, tokenizer.vocab["[UNK]"]) for piece in pieces]


def grow_vocab(tensors, growth):
  """Adds the rows of new tokens.

  Args:
    tensors: dict from upstream's name to array.
    growth: VocabGrowth.

  Returns:
    The dict with longer word embeddings [new vocab_size, width] and, if it has
    a masked-LM head, a longer output bias.
  """
  size = max(len(growth.lines), len(tensors[WORD_EMBEDDINGS]))
  grown = dict(tensors)
  for name in (WORD_EMBEDDINGS, OUTPUT_BIAS):
    if name in tensors:
      old = tensors[name]
      table = np.zeros([size, *old.shape[1:]], old.dtype)
      table[: len(old)] = old
      for token, number in growth.ids.items():
        table[number] = np.mean(old[growth.pieces[token]], axis=0)
      grown[name] = table
  return grown


def grow_positions(tensors, max_position_embeddings):
  """Repeats the position embeddings until there are enough.

  New row i is old row i modulo the old number, as in Longformer's start from
  RoBERTa (arXiv 2004.05150, section 5).

  Args:
    tensors: dict from upstream's name to array.
    max_position_embeddings: number of positions wanted.

  Raises:
    ValueError: the model has more already.
  """
  old = tensors[POSITION_EMBEDDINGS]
  if max_position_embeddings < len(old):
    raise ValueError(
      f"--max_position_embeddings={max_position_embeddings}: the model has "
      f"{len(old)} already; use --max_seq_length for shorter sequences"
    )
  rows = np.arange(max_position_embeddings) % len(old)
  return {**tensors, POSITION_EMBEDDINGS: old[rows]}
