"""Turns text into tokens and ids, and back: BERT's tokenizer.

Two steps make tokens. Normalisation cleans the text, lower-cases it, strips
accents and puts every punctuation mark and Chinese character into a word of
its own. WordPiece then splits each word into the longest pieces that the
vocabulary knows, those inside a word written with a leading "##".

Results equal google-research/bert's for every text, on the same version of
Python (whose `unicodedata` knows which characters are letters). They come
faster: a `CodePointTable` holds the replacement of each code point, and words
met before are looked up.

    tokenizer = tokenization.FullTokenizer("vocab.txt", do_lower_case=True)
    tokens = tokenizer.tokenize("unaffable")  # ["una", "##ffa", "##ble"]
    ids = tokenizer.encode("unaffable")  # the same tokens as ids

The module needs only Python, not TensorFlow: it may be copied alone.
"""

import json
import os
import re
import unicodedata

# The names google-research/bert published its models under, by casing.
_LOWERCASE_MODELS = {
  "uncased_L-24_H-1024_A-16",
  "uncased_L-12_H-768_A-12",
  "multilingual_L-12_H-768_A-12",
  "chinese_L-12_H-768_A-12",
}
_CASED_MODELS = {
  "cased_L-24_H-1024_A-16",
  "cased_L-12_H-768_A-12",
  "multi_cased_L-12_H-768_A-12",
}

# Upstream's choice of blocks, first and last code point: the CJK ideographs.
# Kana and Hangul, written with spaces or as words, are not among them.
_CHINESE_RANGES = (
  (0x4E00, 0x9FFF),
  (0x3400, 0x4DBF),
  (0x20000, 0x2A6DF),
  (0x2A700, 0x2B73F),
  (0x2B740, 0x2B81F),
  (0x2B820, 0x2CEAF),
  (0xF900, 0xFAFF),
  (0x2F800, 0x2FA1F),
)

# str.split() takes these for spaces; to upstream they are control characters,
# deleted before text is split ("a\x0cb" is the single word "ab").
_CONTROLS_THAT_SPLIT = re.compile("[\x0b\x0c\x1c-\x1f\x85]")

# Sentinel in a `CodePointTable` for a code point whose replacement depends on
# its neighbours. U+FFFD is safe: normalisation deletes it from every text.
NEEDS_CONTEXT = "\ufffd"

# Vocabulary entries that do not stand for their letters: [MASK], [unused1], and
# tokens that users put in its place, such as [E1].
_SPECIAL_TOKEN = re.compile(r"\[[^\[\]\s]+\]")

_BYTE_ORDER_MARK = "\ufeff"

# Nine megabytes of English novels hold 110,000 distinct words, each costing
# about 150 bytes here; a full memo then takes 40 MB. Longer words are rarely
# met again (a Chinese sentence has no spaces), and would take most memory.
_MAX_MEMO_ENTRIES = 1 << 18
_MAX_MEMO_CHARS = 32


def validate_case_matches_checkpoint(do_lower_case, init_checkpoint):
  """Checks `do_lower_case` against the name of a published checkpoint.

  Checks only `MODEL/bert_model.ckpt`, where MODEL is the folder of one of
  google-research/bert's first releases; every other path passes.

  Raises:
    ValueError: the model was trained with the other casing.
  """
  match = re.search(r"([\w-]+)/bert_model\.ckpt", init_checkpoint or "", re.A)
  model = match.group(1) if match else None
  expects_lower_case = model in _LOWERCASE_MODELS
  if not expects_lower_case and model not in _CASED_MODELS:
    return
  if bool(do_lower_case) != expects_lower_case:
    raise ValueError(
      f"--do_lower_case={do_lower_case} does not fit"
      f" --init_checkpoint={init_checkpoint}: {model} was pretrained on"
      f" {'lower-cased' if expects_lower_case else 'cased'} text. Pass"
      f" --do_lower_case={expects_lower_case}, or rename the checkpoint's"
      " folder if it holds another model."
    )


def convert_to_unicode(text):
  """Returns `text` as str; bytes are read as UTF-8, invalid ones dropped.

  Raises:
    ValueError: `text` is neither str nor bytes.
  """
  if isinstance(text, str):
    return text
  if isinstance(text, bytes):
    return text.decode("utf-8", "ignore")
  raise ValueError(
    f"a text must be str or bytes, not {type(text).__name__}: {text!r}"
  )


def printable_text(text):
  """Returns `text`, str or bytes, as a str to print."""
  return convert_to_unicode(text)


def read_lines(path):
  r"""Yields the lines of a UTF-8 text file, without their "\n".

  A line ends at "\n" only, and every "\r" is removed wherever it stands, as
  TensorFlow's GFile.readline does for upstream. (`open()` would split at a
  lone "\r" as well, `str.splitlines` at U+2028 and others.)

  Args:
    path: a file; with a scheme such as "gs://", read through TensorFlow.

  Raises:
    OSError: there is no such file, or it cannot be read.
    ValueError: a line is not UTF-8, or the file's lines end in "\r" alone, so
      that they would become one line.
  """
  with open_bytes(path) as lines:
    for number, line in enumerate(lines, start=1):
      is_only_line = number == 1 and not line.endswith(b"\n")
      is_glued = is_only_line and b"\r" in line.rstrip(b"\r")
      # Removed as bytes: in UTF-8 these are never part of other characters.
      line = line.replace(b"\r", b"")
      try:
        text = line.decode("utf-8")
      except UnicodeDecodeError as error:
        raise ValueError(
          f"{path}, line {number}: not UTF-8 (byte {line[error.start]:#04x});"
          " convert the file, for example with iconv"
        ) from None
      if is_glued:
        raise ValueError(
          f"{path}, line 1: its lines end in CR alone, and would become one;"
          " convert the file, for example with tr '\\r' '\\n'"
        )
      # A last line of only "\r" is empty now, which upstream takes for the end.
      if text:
        yield text.removesuffix("\n")


def open_bytes(path):
  """Opens a file for reading bytes, local or remote.

  Raises:
    FileNotFoundError: there is no such file.
    OSError: the file cannot be read.
  """
  path = os.fspath(path)
  if "://" in path:
    import tensorflow as tf

    is_file = tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)
    open_file = tf.io.gfile.GFile
  else:
    is_file, open_file = os.path.isfile(path), open
  if not is_file:
    remedy = "check the path"
    if os.path.isdir(path):  # never so for a remote path
      remedy = "name a file in that directory"
    elif os.path.exists(path):
      remedy = "a pipe cannot be read twice: write it to a file first"
    raise FileNotFoundError(f"{path}: no such file; {remedy}")
  try:
    return open_file(path, "rb")
  except OSError as error:
    raise OSError(
      f"{path} cannot be read ({error.strerror}); check its permissions"
    ) from error


def load_vocab(vocab_file):
  """Reads a vocabulary, see `read_vocab`.

  Returns:
    dict from token to id, in the order of each token's first line; a repeated
    token has the id of its last line.
  """
  return {token: index for index, token in enumerate(read_vocab(vocab_file))}


def read_vocab(vocab_file):
  """Reads the tokens of a vocabulary: one a line, its id the line's number.

  White space around tokens is stripped, and a byte order mark before the first
  one. Every line counts, blank ones (token "") too.

  Args:
    vocab_file: path of a vocab.txt, or of a tokenizer.json as Hugging Face
      saves it since transformers 5.

  Returns:
    List of str, by id from 0.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is empty or not UTF-8, or its lines end in CR; or a
      tokenizer.json holds no WordPiece vocabulary.
  """
  if os.fspath(vocab_file).endswith(".json"):
    return _read_tokenizer_json(vocab_file)
  tokens = [line.strip() for line in read_lines(vocab_file)]
  if not tokens:
    raise ValueError(
      f"{vocab_file}: the vocabulary is empty; it should hold one token a line"
    )
  return [tokens[0].removeprefix(_BYTE_ORDER_MARK), *tokens[1:]]


def _read_tokenizer_json(path):
  with open_bytes(path) as file:
    content = file.read()
  try:
    model = json.loads(content)["model"]
    if model.get("type", "WordPiece") != "WordPiece":
      raise KeyError("WordPiece")
    tokens = [""] * (max(model["vocab"].values()) + 1)
    for token, number in model["vocab"].items():
      tokens[number] = token
  except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
    raise ValueError(
      f"{path} holds no vocabulary of BERT's kind; pass the model's vocab.txt"
    ) from None
  return tokens


def find_special_tokens(vocab):
  """Returns the tokens of `vocab` in square brackets, such as "[MASK]"."""
  return [token for token in vocab if _SPECIAL_TOKEN.fullmatch(token)]


def convert_by_vocab(vocab, items):
  """Looks every item up in `vocab`, tokens or ids, and returns the list.

  Raises:
    ValueError: an item is not in `vocab`.
  """
  try:
    return [vocab[item] for item in items]
  except KeyError as error:
    raise ValueError(
      f"{error.args[0]!r} is not in the vocabulary of {len(vocab)} entries;"
      " use the vocabulary that the model was trained with"
    ) from None


def convert_tokens_to_ids(vocab, tokens):
  """Returns the ids of `tokens`. Raises ValueError for one not in `vocab`."""
  return convert_by_vocab(vocab, tokens)


def convert_ids_to_tokens(inv_vocab, ids):
  """Returns the tokens of `ids`. Raises ValueError for an unknown id."""
  return convert_by_vocab(inv_vocab, ids)


def whitespace_tokenize(text):
  """Splits at Unicode white space, as `str.split` does."""
  return text.split()


def _is_whitespace(char):
  return char in " \t\n\r" or unicodedata.category(char) == "Zs"


def _is_deleted(char):
  # Upstream tests this first: Unicode has tab and newline as controls (Cc).
  if char in "\t\n\r":
    return False
  return char in "\0\ufffd" or unicodedata.category(char) in ("Cc", "Cf")


def _is_chinese(char):
  return any(first <= ord(char) <= last for first, last in _CHINESE_RANGES)


def _is_punctuation(char):
  # Every ASCII character that is no letter or digit counts, "$" and "^"
  # included, which are symbols in Unicode.
  if "!" <= char <= "~":
    return not char.isalnum()
  return unicodedata.category(char).startswith("P")


def _clean(char):
  if _is_deleted(char):
    return ""
  if _is_whitespace(char):
    return " "
  return f" {char} " if _is_chinese(char) else char


def _strip_accents(text):
  decomposed = unicodedata.normalize("NFD", text)
  return "".join(c for c in decomposed if unicodedata.category(c) != "Mn")


def _normalize(text, do_lower_case):
  text = "".join(map(_clean, text))
  if do_lower_case:
    text = _strip_accents(text.lower())
  return "".join(f" {c} " if _is_punctuation(c) else c for c in text)


class CodePointTable(dict):
  """Caches the replacement of each code point in normalised text.

  `table[code_point]` is a str: "" for a control character or an accent, " "
  for white space, the mark between two spaces for punctuation, the lower-case
  letters otherwise. `text.translate(table).split()` then gives the words.

  Two kinds of code points depend on their neighbours once text is lower-cased;
  for them the table holds `NEEDS_CONTEXT`:

  - U+03A3, the capital sigma, whose lower case differs at the end of a word;
  - combining marks that stay in the text (category Mc or Me), since NFD sorts
    neighbouring marks by their combining classes.

  `normalize` handles both; `alone` gives the replacement of a code point that
  has no neighbour.
  """

  def __init__(self, do_lower_case=True):
    super().__init__()
    self.do_lower_case = do_lower_case

  def __missing__(self, code_point):
    replacement = self.alone(code_point)
    if self.do_lower_case and (
      code_point == 0x3A3 or any(map(unicodedata.combining, replacement))
    ):
      replacement = NEEDS_CONTEXT
    self[code_point] = replacement
    return replacement

  def alone(self, code_point):
    """Normalises a text of this one code point."""
    return _normalize(chr(code_point), self.do_lower_case)

  def normalize(self, text):
    """Returns `text` normalised: words with white space between them."""
    normalized = text.translate(self)
    if NEEDS_CONTEXT in normalized:
      # Normalises the whole text. This equals upstream's word by word, since
      # neither lower-casing nor NFD looks across white space.
      normalized = _normalize(text, self.do_lower_case)
    return normalized


class _Memo(dict):
  """Caches `function(word)`; is cleared when it has `_MAX_MEMO_ENTRIES`.

  Clearing adapts it to a new language or subject; frequent words are back at
  once.
  """

  def __init__(self, function):
    super().__init__()
    self._function = function

  def __reduce__(self):
    # A worker process gets the function, not tens of megabytes of words.
    return _Memo, (self._function,)

  def __missing__(self, word):
    value = self._function(word)
    if len(word) <= _MAX_MEMO_CHARS:
      if len(self) >= _MAX_MEMO_ENTRIES:
        self.clear()
      self[word] = value
    return value


class FullTokenizer:
  """Tokenizes text: normalisation, then WordPiece.

  Args:
    vocab_file: path of the vocabulary.
    do_lower_case: whether to lower-case and strip accents.
    special_tokens_in_text: "split" takes "[MASK]" in a text for a word between
      two brackets, as upstream does; "keep" makes it one token, as well as
      every other entry of the vocabulary in square brackets.

  Attributes:
    vocab: dict from token to id.
    inv_vocab: dict from id to token.
    basic_tokenizer: the `BasicTokenizer`.
    wordpiece_tokenizer: the `WordpieceTokenizer`.
    special_tokens: list of the tokens that are kept.
  """

  def __init__(
    self, vocab_file, do_lower_case=True, special_tokens_in_text="split"
  ):
    self.vocab = load_vocab(vocab_file)
    self.inv_vocab = {index: token for token, index in self.vocab.items()}
    keeps = special_tokens_in_text == "keep"
    self.special_tokens = find_special_tokens(self.vocab) if keeps else []
    # No token is a prefix of another, so their order does not matter.
    pattern = "|".join(map(re.escape, self.special_tokens))
    self._special_tokens = re.compile(f"({pattern})") if pattern else None
    self.basic_tokenizer = BasicTokenizer(do_lower_case)
    self.wordpiece_tokenizer = WordpieceTokenizer(self.vocab)
    # Two memos, because normalising a normalised word may change it: NFD then
    # reorders marks that a removed mark had kept apart.
    self._ids_of_written = _Memo(self._normalize_into_ids)
    self._ids_of_word = _Memo(self._split_into_ids)

  def tokenize(self, text):
    """Returns the tokens of `text`, str or UTF-8 bytes."""
    if not self._special_tokens:
      return self._tokenize_plain(text)
    tokens = []
    for part, special_token in self._split_special_tokens(text):
      tokens += self._tokenize_plain(part)
      tokens += special_token
    return tokens

  def _tokenize_plain(self, text):
    words = self.basic_tokenizer.tokenize(text)
    return self.wordpiece_tokenizer.tokenize(" ".join(words))

  def encode(self, text):
    """Returns `convert_tokens_to_ids(tokenize(text))`, only faster.

    Raises:
      ValueError: `text` has an unknown word and the vocabulary no "[UNK]".
    """
    if not self._special_tokens:
      return self._encode_plain(text)
    ids = []
    for part, special_token in self._split_special_tokens(text):
      ids += self._encode_plain(part)
      ids += self.convert_tokens_to_ids(special_token)
    return ids

  def _split_special_tokens(self, text):
    """Returns pairs: a plain part, a list with the special token after it."""
    parts = self._special_tokens.split(convert_to_unicode(text))
    special_tokens = [[token] for token in parts[1::2]]
    return zip(parts[::2], [*special_tokens, []], strict=True)

  def _encode_plain(self, text):
    text = convert_to_unicode(text)
    # No control character is printable, and most texts are: a cheap check.
    if not text.isprintable():
      text = _CONTROLS_THAT_SPLIT.sub("", text)
    # White space always separates words. So the text between two spaces can be
    # looked up as written, and is normalised only when met for the first time.
    ids = []
    ids_of_written = self._ids_of_written
    for written in text.split():
      ids += ids_of_written[written]
    return ids

  def _normalize_into_ids(self, written):
    words = self.basic_tokenizer.tokenize(written)
    if len(words) == 1:
      return self._ids_of_word[words[0]]
    ids = []
    for word in words:
      ids += self._ids_of_word[word]
    return tuple(ids)

  def _split_into_ids(self, word):
    pieces = self.wordpiece_tokenizer.split_word(word)
    return tuple(convert_by_vocab(self.vocab, pieces))

  def convert_tokens_to_ids(self, tokens):
    """Returns the ids of `tokens`. Raises ValueError for an unknown token."""
    return convert_by_vocab(self.vocab, tokens)

  def convert_ids_to_tokens(self, ids):
    """Returns the tokens of `ids`. Raises ValueError for an unknown id."""
    return convert_by_vocab(self.inv_vocab, ids)


class BasicTokenizer:
  """Normalises text and splits it into words.

  Attributes:
    do_lower_case: whether to lower-case and strip accents.
    table: the `CodePointTable` in use.
  """

  def __init__(self, do_lower_case=True):
    self.do_lower_case = do_lower_case
    self.table = CodePointTable(do_lower_case)

  def tokenize(self, text):
    """Returns the words and punctuation marks of `text`, str or UTF-8 bytes."""
    return self.table.normalize(convert_to_unicode(text)).split()


class WordpieceTokenizer:
  """Splits words into the longest pieces known, from left to right.

  Attributes:
    vocab: the known tokens, a dict or another collection; not to be changed.
    unk_token: stands for a word that cannot be split into known pieces.
    max_input_chars_per_word: a longer word becomes `unk_token`.
  """

  def __init__(self, vocab, unk_token="[UNK]", max_input_chars_per_word=200):
    self.vocab = vocab
    self.unk_token = unk_token
    self.max_input_chars_per_word = max_input_chars_per_word
    # No piece of a word can be longer, so no longer one is tried.
    self._max_piece_chars = max(1, max(map(len, vocab), default=1))
    self._pieces_of = _Memo(self.split_word)

  def tokenize(self, text):
    """Returns the pieces of all words of a normalised `text`."""
    pieces = []
    for word in whitespace_tokenize(convert_to_unicode(text)):
      pieces += self._pieces_of[word]
    return pieces

  def split_word(self, word):
    """Returns the pieces of one word, without looking it up in the memo."""
    if len(word) > self.max_input_chars_per_word:
      return [self.unk_token]
    pieces = []
    start = 0
    while start < len(word):
      prefix = "##" if start else ""
      end = min(len(word), start + self._max_piece_chars)
      while (piece := prefix + word[start:end]) not in self.vocab:
        end -= 1
        if end == start:
          return [self.unk_token]
      pieces.append(piece)
      start = end
    return pieces
