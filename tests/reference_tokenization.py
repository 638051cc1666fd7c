"""BERT's tokenizer the slow way: one pass after the other, no table, no memo.

The yardstick of `tokenization_test.py` (equal results) and of
`benchmarks/tokenizer_speed.py` (speed). Its algorithm is that of
google-research/bert's `tokenization.py`, and so is its cost; the tests check it
against recorded outputs of the original.
"""

import unicodedata

CHINESE_BLOCKS = (
  (0x3400, 0x4DBF),
  (0x4E00, 0x9FFF),
  (0xF900, 0xFAFF),
  (0x20000, 0x2A6DF),
  (0x2A700, 0x2B73F),
  (0x2B740, 0x2B81F),
  (0x2B820, 0x2CEAF),
  (0x2F800, 0x2FA1F),
)


def basic(text, do_lower_case):
  """Returns the words of `text`."""
  words = []
  for word in space_out_chinese(clean(text)).split():
    if do_lower_case:
      word = strip_accents(word.lower())
    words.extend(split_at_punctuation(word))
  return " ".join(words).split()


def clean(text):
  """Deletes control characters, makes every white space a blank."""
  kept = []
  for char in text:
    if ord(char) in (0, 0xFFFD) or is_control(char):
      continue
    kept.append(" " if is_whitespace(char) else char)
  return "".join(kept)


def space_out_chinese(text):
  """Puts blanks around every Chinese character."""
  spaced = []
  for char in text:
    spaced.append(f" {char} " if is_chinese(char) else char)
  return "".join(spaced)


def strip_accents(text):
  """Decomposes and drops nonspacing marks."""
  kept = []
  for char in unicodedata.normalize("NFD", text):
    if unicodedata.category(char) != "Mn":
      kept.append(char)
  return "".join(kept)


def split_at_punctuation(word):
  """Returns the runs of other characters and each punctuation mark alone."""
  parts = []
  in_word = False
  for char in word:
    if is_punctuation(char):
      parts.append(char)
      in_word = False
    elif in_word:
      parts[-1] += char
    else:
      parts.append(char)
      in_word = True
  return parts


def wordpiece(text, vocab, unk_token="[UNK]", max_input_chars_per_word=200):
  """Returns the pieces of the words of `text`."""
  pieces = []
  for word in text.split():
    pieces.extend(pieces_of(word, vocab, max_input_chars_per_word, unk_token))
  return pieces


def pieces_of(word, vocab, max_chars, unk_token):
  """Returns the longest known pieces of a word, from left to right."""
  if len(word) > max_chars:
    return [unk_token]
  pieces = []
  start = 0
  while start < len(word):
    end = len(word)
    while end > start:
      piece = word[start:end] if start == 0 else "##" + word[start:end]
      if piece in vocab:
        break
      end -= 1
    if end == start:
      return [unk_token]
    pieces.append(piece)
    start = end
  return pieces


def tokenize(text, vocab, do_lower_case):
  """Returns the tokens of `text`."""
  pieces = []
  for word in basic(text, do_lower_case):
    pieces.extend(wordpiece(word, vocab))
  return pieces


def encode(text, vocab, do_lower_case):
  """Returns the ids of the tokens of `text`."""
  return [vocab[token] for token in tokenize(text, vocab, do_lower_case)]


def is_chinese(char):
  """Whether `char` is in one of upstream's blocks of ideographs."""
  code_point = ord(char)
  for first, last in CHINESE_BLOCKS:
    if first <= code_point <= last:
      return True
  return False


def is_whitespace(char):
  """White space to upstream; str.isspace is true of more characters."""
  if char in (" ", "\t", "\n", "\r"):
    return True
  return unicodedata.category(char) == "Zs"


def is_control(char):
  """Control and format characters that are no white space."""
  if char in ("\t", "\n", "\r"):
    return False
  return unicodedata.category(char) in ("Cc", "Cf")


def is_punctuation(char):
  """Unicode's punctuation and all of ASCII's symbols."""
  code_point = ord(char)
  if (
    33 <= code_point <= 47
    or 58 <= code_point <= 64
    or 91 <= code_point <= 96
    or 123 <= code_point <= 126
  ):
    return True
  return unicodedata.category(char).startswith("P")
