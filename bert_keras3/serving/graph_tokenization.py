"""The tokenizer as TensorFlow ops, to be put into SavedModels.

Text goes in as strings and comes out as ids: those of `tokenization.py`, for
every text, cased and lower-cased. Vocabulary and Unicode's tables are constants
of the graph. What was exported needs no file, and stays as it is where Python's
`unicodedata` is another.

    tokenizer = GraphTokenizer("vocab.txt", do_lower_case=True)
    ids = tokenizer.tokenize(["unaffable", "a second text"])  # ragged
    batch = pack(ids, None, max_seq_length=128, cls_id=101, sep_id=102)

How it works: a text is cut at spaces, and what stands between them is dealt
with once a batch, however often it is there. The distinct ones then make one
long text, in which everything is done to all of its characters at once: a table
says which rule a code point follows, a rule which characters it becomes.
WordPiece is tensorflow_text's, the only op that is not TensorFlow's own.
"""

import functools
import sys
import typing
import unicodedata

import numpy as np
import tensorflow as tf

import tokenization

_SPACE = ord(" ")
_CAPITAL_SIGMA = 0x3A3
_FINAL_SIGMA = 0x3C2
# Where upstream's run_squad.py separates words, see `squad_data.split_words`.
_SQUAD_SPACES = " \t\r\n\u202f"
# Categories of code points that no character has: to come, private, surrogates.
_UNASSIGNED = {"Cn", "Co", "Cs"}
# Stands in a rule for the code point that it is applied to.
_ITSELF = -1
# The "id" of all that is no special token.
_NOT_SPECIAL = -1
# What a code point is to a capital sigma beside it, see `_sigma_role`.
_UNSEEN, _CASED, _CASELESS = range(3)
# More bytes than a word of 200 characters has. A longer word is replaced by
# `_ENDLESS_WORD`: tensorflow_text counts bytes, upstream counts characters.
_MAX_WORD_BYTES = 800
_ENDLESS_WORD = "x" * (_MAX_WORD_BYTES + 1)
# tensorflow_text refuses a vocabulary with a longer token.
_MAX_PIECE_BYTES = 256
# RE2's: a run of characters that Python's UTF-8 knows, or a byte of no such.
_CHARACTERS_OR_BYTE = r"([\x{0}-\x{D7FF}\x{E000}-\x{10FFFF}]+)|\C"
# All that may be a special token. It is separated from its neighbours without
# harm if it is none: brackets are words of their own, and no rule looks past.
_IN_BRACKETS = r"(\[[^\[\]]+\])"
# No Python statement depends on a tensor's value here.
_GRAPH_OF_TEXTS = tf.function(
  input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
)


# Tables -----------------------------------------------------------------------


class _Rule(typing.NamedTuple):
  """What happens to code points.

  Attributes:
    becomes: the characters, `_ITSELF` or code points; a space ends a word.
    classes: the combining class of each.
    starts_run: whether NFD moves no mark from one side of it to the other.
    sigma_role: what it is to a sigma beside it.
    is_lost_mark: whether it is a mark that is removed from its letter.
    separates: whether it is a space to SQuAD.
  """

  becomes: tuple
  classes: tuple
  starts_run: bool
  sigma_role: int
  is_lost_mark: bool
  separates: bool


class _Tables(typing.NamedTuple):
  """The rules of all code points, as arrays.

  Attributes:
    pages: int32 [code points / 256], the page of each 256 code points.
    page_rules: int32 [pages * 256], the rule of each code point of a page.
    first, count: int64 [rules], where in `becomes` the characters are.
    becomes, classes: int32 [characters of all rules].
    starts_run, sigma_role, is_lost_mark, separates: [rules], see `_Rule`.
  """

  pages: np.ndarray
  page_rules: np.ndarray
  first: np.ndarray
  count: np.ndarray
  becomes: np.ndarray
  classes: np.ndarray
  starts_run: np.ndarray
  sigma_role: np.ndarray
  is_lost_mark: np.ndarray
  separates: np.ndarray


@functools.cache
def _make_tables(do_lower_case):
  """Unicode by the rules of `tokenization.CodePointTable`, as `_Tables`."""
  table = tokenization.CodePointTable(do_lower_case)
  cleaner = tokenization.CodePointTable(do_lower_case=False)
  number_of = {}
  numbers = [
    [
      number_of.setdefault(rule, len(number_of))
      for rule in _make_page(first, table, cleaner)
    ]
    for first in range(0, sys.maxunicode + 1, 256)
  ]
  pages, page_of = np.unique(
    np.array(numbers, np.int32), axis=0, return_inverse=True
  )
  becomes, classes, *columns = zip(*number_of, strict=True)
  counts = np.array([len(x) for x in becomes], np.int64)
  return _Tables(
    page_of.astype(np.int32).ravel(),
    pages.ravel(),
    np.cumsum(counts) - counts,
    counts,
    np.array(sum(becomes, ()), np.int32),
    np.array(sum(classes, ()), np.int32),
    *map(np.array, columns),
  )


def _make_page(first, table, cleaner):
  """The rules of 256 code points.

  Most pages equal another one, such as all that hold nothing but ideographs.
  """
  codes = range(first, first + 256)
  categories = {unicodedata.category(chr(code)) for code in codes}
  if categories <= _UNASSIGNED:
    # Three quarters of all pages. Upstream's blocks of Chinese characters, all
    # that matters for these, begin and end elsewhere.
    return [_make_rule(first, table, cleaner)] * 256
  return [_make_rule(code, table, cleaner) for code in codes]


def _make_rule(code_point, table, cleaner):
  """The `_Rule` of a code point."""
  char = chr(code_point)
  replacement = table.alone(code_point)
  # What the cased table deletes is gone before anything is lower-cased.
  is_deleted = not cleaner.alone(code_point)
  decomposed = "" if is_deleted else unicodedata.normalize("NFD", char.lower())
  return _Rule(
    tuple(
      _SPACE if x.isspace() else _ITSELF if x == char else ord(x)
      for x in replacement
    ),
    tuple(map(unicodedata.combining, replacement)),
    not all(map(unicodedata.combining, decomposed)),
    _UNSEEN if is_deleted else _sigma_role(char),
    not replacement and unicodedata.category(char) == "Mn",
    char in _SQUAD_SPACES,
  )


def _sigma_role(char):
  """What `char` means to `str.lower` beside a capital sigma.

  A sigma is final if the nearest character before it that is not `_UNSEEN` is
  `_CASED`, and the nearest one after it is not. Python does not tell which ones
  these are (Unicode's Cased and Case_Ignorable), but can be tried.
  """
  decides = (char + "\u03a3").lower().endswith("\u03c2")
  is_cased_or_unseen = ("A" + char + "\u03a3").lower().endswith("\u03c2")
  if decides:
    return _CASED
  return _UNSEEN if is_cased_or_unseen else _CASELESS


@functools.cache
def _make_utf8_lengths():
  """The bytes of a character that begins with two given bytes.

  By table 3-7 of the Unicode standard: no overlong form, no surrogate, nothing
  beyond U+10FFFF. Bytes after the second are not looked at.

  Returns:
    int32 [256 * 256], by first byte * 256 + second; 0 where none begins.
  """
  lengths = np.zeros([256, 256], np.int32)
  lengths[:0x80] = 1
  lengths[0xC2:0xE0, 0x80:0xC0] = 2
  lengths[0xE0:0xF0, 0x80:0xC0] = 3
  lengths[0xE0, :0xA0] = 0
  lengths[0xED, 0xA0:] = 0
  lengths[0xF0:0xF5, 0x80:0xC0] = 4
  lengths[0xF0, :0x90] = 0
  lengths[0xF4, 0x90:] = 0
  return lengths.ravel()


# Tokenizer --------------------------------------------------------------------


class _Text(typing.NamedTuple):
  """Distinct strings without spaces, one after another, a space after each.

  Attributes:
    code_points: int32 [code points], as written.
    row_splits: int64 [strings + 1], where each string begins.
    rules: int32 [code points].
    chars: int32 [characters], normalised.
    unordered: int32 [characters], before marks were put into order.
    sources: int64 [characters], the code point that each was made of.
    char_splits: int64 [strings + 1], where the characters of a string begin.
  """

  code_points: tf.Tensor
  row_splits: tf.Tensor
  rules: tf.Tensor
  chars: tf.Tensor
  unordered: tf.Tensor
  sources: tf.Tensor
  char_splits: tf.Tensor


class _Pieces(typing.NamedTuple):
  """The pieces of a `_Text`.

  Attributes:
    ids: int32 [pieces].
    row_splits: int64 [strings + 1], where the pieces of a string begin.
    words: int64 [pieces], the normalised word of each.
    starts, ends: int64 [pieces], bytes in that word.
    is_whole: bool [pieces], whether it is the word's only piece.
    word_lengths: int64 [words], in characters.
  """

  ids: tf.Tensor
  row_splits: tf.Tensor
  words: tf.Tensor
  starts: tf.Tensor
  ends: tf.Tensor
  is_whole: tf.Tensor
  word_lengths: tf.Tensor


class GraphTokenizer(tf.Module):
  """`tokenization.FullTokenizer.encode` for batches, within a graph.

  A string that is not UTF-8 loses its invalid bytes, as by
  `tokenization.convert_to_unicode`.

  Attributes:
    do_lower_case: whether to lower-case and strip accents.

  Raises:
    FileNotFoundError: there is no such vocabulary file.
    ImportError: tensorflow_text is not installed.
    ValueError: the vocabulary is empty, is not UTF-8, lacks "[UNK]" or has a
      token of more than 256 bytes, or a special token is none of it.
  """

  def __init__(self, vocab, do_lower_case=True, special_tokens=()):
    """Makes the constants.

    Args:
      vocab: a vocabulary file, or a dict from token to id like the `vocab` of
        tokenization.FullTokenizer.
      do_lower_case: whether to lower-case and strip accents.
      special_tokens: list of str, which tokens in square brackets are kept as
        one, see the attribute of tokenization.FullTokenizer.
    """
    super().__init__()
    if not isinstance(vocab, dict):
      vocab = tokenization.load_vocab(vocab)
    self.do_lower_case = bool(do_lower_case)
    self._max_word_chars = tokenization.WordpieceTokenizer(
      vocab
    ).max_input_chars_per_word
    # Tensors made here belong to no function, and are shared by all of them.
    with tf.init_scope(), tf.device("CPU"):
      self._tables = _Tables(
        *map(tf.constant, _make_tables(self.do_lower_case))
      )
      self._utf8_lengths = tf.constant(_make_utf8_lengths())
      self._wordpiece, self._ids = _make_wordpiece(vocab, self._max_word_chars)
      self._special_ids = _make_special_ids(vocab, special_tokens)
    if self._special_ids:
      # Not refused in there: saving a model traces all functions of its parts.
      self.tokenize_with_offsets = _refuse_offsets

  @_GRAPH_OF_TEXTS
  def tokenize(self, texts):
    """Texts to ids, without `[CLS]` and `[SEP]`.

    Args:
      texts: string [batch], UTF-8.

    Returns:
      int32 RaggedTensor [batch, (tokens)].
    """
    with tf.device("CPU"):
      if self._special_ids:
        texts = _set_brackets_apart(texts)
      strings, numbers = _split(texts)
      ids = self._encode(strings)
      return _merge(numbers, tf.gather(ids, numbers.values))

  def _encode(self, strings):
    """Strings without spaces to an int32 RaggedTensor [strings, (tokens)]."""
    special_ids = None
    if self._special_ids:
      special_ids = self._special_ids.lookup(strings)
      strings = tf.where(special_ids == _NOT_SPECIAL, strings, "")
    pieces = self._split_words(self._normalize(strings))
    ids = tf.RaggedTensor.from_row_splits(
      pieces.ids, pieces.row_splits, validate=False
    )
    if special_ids is None:
      return ids
    special_ids = special_ids[:, tf.newaxis]
    kept = tf.ragged.boolean_mask(special_ids, special_ids != _NOT_SPECIAL)
    return tf.concat([ids, kept], axis=1)

  @_GRAPH_OF_TEXTS
  def tokenize_with_offsets(self, texts):
    """Texts to ids, and the characters that each was made of.

    Offsets count code points of `tokenization.convert_to_unicode(text)`. They
    are those of `squad_data.align_pieces`, applied to each word that
    `squad_data.split_words` finds.

    Args:
      texts: string [batch], UTF-8.

    Returns:
      Dict of int32 RaggedTensors [batch, (tokens)]: `ids`; `starts`, the first
      character; `ends`, the one after the last; `words`, the number of the word
      in the text.

    Raises:
      ValueError: there are special tokens, which SQuAD's words know nothing of.
    """
    with tf.device("CPU"):
      strings, numbers = _split(texts)
      text = self._normalize(strings)
      pieces = self._split_words(text)
      columns, sizes = self._align(text, pieces)
      columns = tf.RaggedTensor.from_row_splits(
        columns, pieces.row_splits, validate=False
      )
      # Counted within a string up to here, and shifted into the text now.
      shifts = _sums_before(numbers, tf.gather(sizes, numbers.values))
      columns = tf.gather(columns, numbers.values)
      shifts = tf.gather(shifts, columns.value_rowids())
      columns = columns.with_values(columns.values + shifts)
      columns = _merge(numbers, columns)
      names = ("ids", "starts", "ends", "words")
      by_name = zip(names, tf.unstack(columns.values, axis=1), strict=True)
      return {name: columns.with_values(values) for name, values in by_name}

  def _normalize(self, strings):
    """string [strings], without spaces, to a `_Text`."""
    tables = self._tables
    code_points, row_splits = self.decode(strings)
    if self.do_lower_case:
      code_points = tf.cond(
        tf.reduce_any(code_points == _CAPITAL_SIGMA),
        lambda: self._lower_final_sigmas(code_points),
        lambda: code_points,
      )
    rules = self._look_up(code_points)
    char_splits, sources, which = _expand(tf.gather(tables.count, rules))
    which += tf.gather(tf.gather(tables.first, rules), sources)
    chars = tf.gather(tables.becomes, which)
    unordered = tf.where(
      chars == _ITSELF, tf.gather(code_points, sources), chars
    )
    chars = unordered
    if self.do_lower_case:
      classes = tf.gather(tables.classes, which)
      chars = tf.cond(
        tf.reduce_any(classes > 0),
        lambda: self._reorder(unordered, classes, rules, sources),
        lambda: unordered,
      )
    char_splits = tf.gather(char_splits, row_splits)
    return _Text(
      code_points, row_splits, rules, chars, unordered, sources, char_splits
    )

  def decode(self, strings):
    """Strings to code points, as `tokenization.convert_to_unicode` reads bytes.

    Args:
      strings: string [strings], a space is put after each.

    Returns:
      (int32 [code points of all], int64 [strings + 1], where each begins).

    `tf.strings.unicode_decode` judges invalid bytes otherwise than Python. In
    UTF-8 a first byte is never a later one, so every character can be found
    without knowing where others are. The rest is what Python drops.
    """
    data = tf.strings.reduce_join(strings, separator=" ") + " "
    data = tf.cast(tf.io.decode_raw(data, tf.uint8), tf.int32)
    sizes = tf.cast(tf.strings.length(strings), tf.int64) + 1
    splits = tf.concat([[0], tf.cumsum(sizes)], axis=0)
    return tf.cond(
      tf.reduce_max(data) < 0x80,
      lambda: (data, splits),
      lambda: self._decode_beyond_ascii(data, splits),
    )

  def _decode_beyond_ascii(self, data, splits):
    # A space follows every string, so that none continues in the next one.
    padded = tf.concat([data, [0, 0, 0]], axis=0)
    later = padded[1:-2], padded[2:-1], padded[3:]
    length = tf.gather(self._utf8_lengths, data * 256 + later[0])
    is_first = length > 0
    for number, byte in ((3, later[1]), (4, later[2])):
      is_first &= (length < number) | (byte & 0xC0 == 0x80)
    firsts = tf.where(is_first)[:, 0]
    length = tf.gather(length, firsts)
    # The first byte's bits that tell no length: 7, or 5, 4 or 3 of them.
    code_points = tf.gather(data, firsts)
    code_points &= tf.gather([0, 0x7F, 0x1F, 0x0F, 0x07], length)
    for number, byte in enumerate(later, start=2):
      longer = code_points * 64 + (tf.gather(byte, firsts) & 0x3F)
      code_points = tf.where(length >= number, longer, code_points)
    return code_points, tf.searchsorted(firsts, splits, out_type=tf.int64)

  def _look_up(self, code_points):
    """The rule of each code point."""
    page = tf.gather(self._tables.pages, tf.bitwise.right_shift(code_points, 8))
    place = code_points & 255
    return tf.gather(self._tables.page_rules, page * 256 + place)

  def _lower_final_sigmas(self, code_points):
    """Lower-cases the capital sigmas that end a word, see `_sigma_role`."""
    roles = tf.gather(self._tables.sigma_role, self._look_up(code_points))
    seen = tf.where(roles != _UNSEEN)[:, 0]
    is_cased = tf.gather(roles, seen) == _CASED
    is_final = tf.concat([[False], is_cased[:-1]], axis=0)
    is_final &= ~tf.concat([is_cased[1:], [False]], axis=0)
    is_final &= tf.gather(code_points, seen) == _CAPITAL_SIGMA
    finals = tf.boolean_mask(seen, is_final)
    return tf.tensor_scatter_nd_update(
      code_points,
      finals[:, tf.newaxis],
      tf.fill(tf.shape(finals), _FINAL_SIGMA),
    )

  def _reorder(self, chars, classes, rules, sources):
    """Sorts the marks after each letter by their combining class, as NFD."""
    starts_run = tf.cast(tf.gather(self._tables.starts_run, rules), tf.int64)
    keys = tf.gather(tf.cumsum(starts_run), sources) * 256
    keys += tf.cast(classes, tf.int64)
    return tf.gather(chars, tf.argsort(keys, stable=True))

  def _split_words(self, text):
    """A `_Text` to `_Pieces`."""
    word_starts, word_ends = _find_runs(text.chars != _SPACE)
    word_lengths = word_ends - word_starts
    words = tf.strings.unicode_encode(text.chars[tf.newaxis], "UTF-8")[0]
    words = tf.strings.split(words)
    is_long = word_lengths > self._max_word_chars
    words = tf.cond(
      tf.reduce_any(is_long),
      lambda: tf.where(is_long, _ENDLESS_WORD, words),
      lambda: words,
    )
    ids, starts, ends = self._wordpiece.tokenize_with_offsets(words)
    rows = tf.searchsorted(word_starts, text.char_splits, out_type=tf.int64)
    of_word = ids.value_rowids()
    return _Pieces(
      tf.gather(self._ids, ids.values),
      tf.gather(ids.row_splits, rows),
      of_word,
      starts.values,
      ends.values,
      tf.gather(ids.row_lengths() == 1, of_word),
      word_lengths,
    )

  def _align(self, text, pieces):
    """What `squad_data.align_pieces` does.

    Returns:
      (int32 [pieces, 4], the columns of `tokenize_with_offsets` counted within
      each string, int32 [strings, 4], how far each string carries them).
    """
    first_words, stop_words = self._squad_words(text)
    sources, ends = self._follow_characters(text, first_words)
    first, stop = _piece_bounds(text, pieces)
    starts = tf.gather(sources, first)
    ends = tf.gather(ends, stop - 1)
    words = _number_of_run(first_words, starts)
    # In a word with marks in another order each piece has all of it.
    moved = tf.boolean_mask(text.sources, text.chars != text.unordered)
    is_moved = tf.math.unsorted_segment_sum(
      tf.ones_like(moved),
      _number_of_run(first_words, moved),
      tf.size(first_words, tf.int64),
    )
    is_moved = tf.gather(is_moved > 0, words)
    starts = tf.where(is_moved, tf.gather(first_words, words), starts)
    ends = tf.where(is_moved, tf.gather(stop_words, words), ends)
    columns = tf.stack([tf.cast(pieces.ids, tf.int64), starts, ends, words], 1)
    return _count_from_rows(columns, text, pieces.row_splits, first_words)

  def _squad_words(self, text):
    """First and last code points of SQuAD's words, int64 [words] each."""
    is_word = ~tf.gather(self._tables.separates, text.rules)
    return _find_runs(is_word)

  def _follow_characters(self, text, first_words):
    """The code points that characters, spaces left out, were made of.

    An accent that was removed belongs to the character before it, if that is of
    the same word.

    Returns:
      int64 [characters] twice: the first, and the one after the last.
    """
    sources = tf.boolean_mask(text.sources, text.chars != _SPACE)
    lost = tf.where(tf.gather(self._tables.is_lost_mark, text.rules))[:, 0]
    owners = tf.searchsorted(sources, lost, out_type=tf.int64) - 1
    lost = tf.boolean_mask(lost, owners >= 0)
    owners = tf.boolean_mask(owners, owners >= 0)
    is_near = _number_of_run(first_words, lost) == _number_of_run(
      first_words, tf.gather(sources, owners)
    )
    owners = tf.boolean_mask(owners, is_near)[:, tf.newaxis]
    lost = tf.boolean_mask(lost, is_near)
    ends = tf.tensor_scatter_nd_max(sources + 1, owners, lost + 1)
    return sources, ends


# Parts ------------------------------------------------------------------------


def _make_wordpiece(vocab, max_word_chars):
  """Returns (FastWordpieceTokenizer, int32 [its tokens], the ids of them)."""
  if "[UNK]" not in vocab:
    raise ValueError(
      "the vocabulary has no [UNK], which stands for unknown words; use the"
      " vocabulary that the model was trained with"
    )
  try:
    import tensorflow_text
  except ImportError as error:
    raise ImportError(
      "tokenizing within a graph needs tensorflow_text, of TensorFlow's version"
      f" ({tf.__version__}): pip install tensorflow-text. There is none for"
      f" Windows; use Linux, macOS or WSL there. ({error})"
    ) from error
  tokens = [x for x in vocab if _is_usable(x, max_word_chars)]
  wordpiece = tensorflow_text.FastWordpieceTokenizer(
    tokens,
    max_bytes_per_word=_MAX_WORD_BYTES,
    token_out_type=tf.int32,
    no_pretokenization=True,
  )
  return wordpiece, tf.constant([vocab[x] for x in tokens], tf.int32)


def _make_special_ids(vocab, special_tokens):
  """A table from special token to id, None if there are none.

  Raises:
    ValueError: one is not in the vocabulary or not in square brackets.
  """
  unknown = {*special_tokens} - {*tokenization.find_special_tokens(vocab)}
  if unknown:
    raise ValueError(
      f"{min(unknown)!r} can be no special token: it is not in the vocabulary,"
      " or not in square brackets"
    )
  if not special_tokens:
    return None
  ids = tf.constant([vocab[x] for x in special_tokens], tf.int32)
  return tf.lookup.StaticHashTable(
    tf.lookup.KeyValueTensorInitializer(tf.constant(special_tokens), ids),
    _NOT_SPECIAL,
  )


def _refuse_offsets(texts):
  del texts
  raise ValueError(
    "special tokens have no offsets; make a GraphTokenizer without"
    " special_tokens for texts that need them"
  )


def _is_usable(token, max_word_chars):
  """Whether a word can have this piece; others are kept from tensorflow_text.

  Raises:
    ValueError: it can, but tensorflow_text cannot.
  """
  piece = token.removeprefix("##")
  # Nothing is left of a blank token or a "##", and no word has white space.
  if piece.split() != [piece] or len(piece) > max_word_chars:
    return False
  if len(piece.encode()) > _MAX_PIECE_BYTES:
    raise ValueError(
      f"{token!r}: tensorflow_text takes no token of more than"
      f" {_MAX_PIECE_BYTES} bytes; shorten it in the vocabulary, which changes"
      " no other token's id"
    )
  return True


def _set_brackets_apart(texts):
  """Texts with spaces around all that is in brackets, invalid bytes gone.

  What is left of "[MA\\xffSK]" is a mask, in Python as well.
  """
  texts = tf.strings.regex_replace(texts, _CHARACTERS_OR_BYTE, r"\1")
  return tf.strings.regex_replace(texts, _IN_BRACKETS, r" \1 ")


def _split(texts):
  """Cuts texts at spaces.

  Returns:
    (string [strings], the distinct ones, int64 RaggedTensor [batch, (strings)],
    which of them each text consists of).
  """
  written = tf.strings.split(texts, sep=" ")
  strings, numbers = tf.unique(written.values, out_idx=tf.int64)
  return strings, written.with_values(numbers)


def _merge(outer, inner):
  """[batch, (n)] and [all n, (tokens), ...] to [batch, (tokens), ...]."""
  return tf.RaggedTensor.from_row_splits(
    inner.values, tf.gather(inner.row_splits, outer.row_splits), validate=False
  )


def _expand(counts):
  """Every number from 0 as often as `counts` says, and which time it is.

  Args:
    counts: int64 [n], each below 4.

  Returns:
    int64 (splits [n + 1], numbers [sum of counts], times [sum of counts]).
  """
  firsts = tf.range(tf.size(counts, tf.int64)) * 4
  ranges = tf.ragged.range(firsts, firsts + counts)
  numbers = tf.bitwise.right_shift(ranges.values, tf.constant(2, tf.int64))
  return ranges.row_splits, numbers, ranges.values & 3


def _find_runs(mask):
  """Where runs of True begin, and the positions after them, int64 [runs]."""
  mask = tf.concat([[False], mask, [False]], axis=0)
  starts = tf.where(mask[1:] & ~mask[:-1])[:, 0]
  return starts, tf.where(mask[:-1] & ~mask[1:])[:, 0]


def _number_of_run(starts, positions):
  """Which run each position is in."""
  after = tf.searchsorted(starts, positions, side="right", out_type=tf.int64)
  return after - 1


def _piece_bounds(text, pieces):
  """Where pieces are, in characters without spaces, int64 [pieces] each."""
  chars = tf.boolean_mask(text.chars, text.chars != _SPACE)
  num_bytes = 1 + sum(
    tf.cast(chars >= x, tf.int64) for x in (0x80, 0x800, 0x10000)
  )
  bytes_before = tf.concat([[0], tf.cumsum(num_bytes)], axis=0)
  lengths = pieces.word_lengths
  firsts = tf.gather(tf.cumsum(lengths, exclusive=True), pieces.words)
  offset = tf.gather(bytes_before, firsts)
  return [
    tf.where(
      pieces.is_whole,  # Perhaps the unknown token.
      whole,
      tf.searchsorted(bytes_before, offset + part, out_type=tf.int64),
    )
    for whole, part in (
      (firsts, pieces.starts),
      (firsts + tf.gather(lengths, pieces.words), pieces.ends),
    )
  ]


def _count_from_rows(columns, text, piece_splits, first_words):
  """Code points and words of columns counted from each string's beginning.

  Returns:
    (int32 [pieces, 4], int32 [strings, 4], what each string has of them).
  """
  words = tf.searchsorted(first_words, text.row_splits, out_type=tf.int64)
  chars = text.row_splits
  begins = tf.stack([tf.zeros_like(chars), chars, chars, words], 1)
  rows = tf.repeat(
    tf.range(tf.size(piece_splits) - 1), piece_splits[1:] - piece_splits[:-1]
  )
  columns -= tf.gather(begins, rows)
  return tf.cast(columns, tf.int32), tf.cast(begins[1:] - begins[:-1], tf.int32)


def _sums_before(ragged, values):
  """Sums of the values that precede each one in its row.

  Args:
    ragged: RaggedTensor [rows, (n)].
    values: [n of all rows, columns].
  """
  before = tf.cumsum(values, exclusive=True)
  of_row = tf.gather(before, ragged.row_starts())
  return before - tf.gather(of_row, ragged.value_rowids())


# Packing ----------------------------------------------------------------------


def pack(first, second, max_seq_length, cls_id, sep_id):
  """Ids of texts, or of pairs of texts, to a model's input.

  The sequences of `sequences.truncate_pair` and `pack_pair`: `[CLS] first
  [SEP]`, and `second [SEP]` where that has tokens.

  Args:
    first: int32 RaggedTensor [batch, (tokens)].
    second: the same, or None.
    max_seq_length: tokens of a sequence at most, 3 or more; an int or a scalar.
    cls_id: id of `[CLS]`.
    sep_id: id of `[SEP]`.

  Returns:
    Dict of `input_ids`, `input_mask` and `segment_ids`, int32 [batch, length];
    the length is that of the longest sequence.
  """
  with tf.device("CPU"):
    if second is None:
      second = tf.RaggedTensor.from_row_splits(
        tf.zeros([0], tf.int32), tf.zeros_like(first.row_splits)
      )
    first, second = truncate_pair(first, second, max_seq_length)
    num_first = first.row_lengths() + 2
    has_second = tf.cast(second.row_lengths() > 0, tf.int64)
    cls, sep = (tf.fill([first.nrows(), 1], x) for x in (cls_id, sep_id))
    last_sep = _keep(tf.RaggedTensor.from_tensor(sep), has_second)
    packed = tf.concat([cls, first, sep, second, last_sep], axis=1)
    input_ids = packed.to_tensor()
    positions = tf.range(tf.shape(input_ids, tf.int64)[1])
    is_token = positions < packed.row_lengths()[:, tf.newaxis]
    is_second = is_token & (positions >= num_first[:, tf.newaxis])
    return {
      "input_ids": input_ids,
      "input_mask": tf.cast(is_token, tf.int32),
      "segment_ids": tf.cast(is_second, tf.int32),
    }


def truncate_pair(first, second, max_seq_length):
  """Cuts texts as `sequences.truncate_pair` does.

  Args:
    first: int32 RaggedTensor [batch, (tokens)].
    second: the same; its rows may be empty.
    max_seq_length: tokens of a sequence at most, `[CLS]` and `[SEP]` included.

  Returns:
    (first, second), their ends cut off.
  """
  room = tf.cast(max_seq_length, tf.int64) - 3
  num_first, num_second = first.row_lengths(), second.row_lengths()
  keep_second = tf.maximum(room // 2, room - num_first)
  keep_second = tf.minimum(num_second, keep_second)
  # Without a second text there is no second [SEP] either.
  room += tf.cast(num_second == 0, tf.int64)
  keep_first = tf.minimum(num_first, room - keep_second)
  return _keep(first, keep_first), _keep(second, keep_second)


def _keep(ids, counts):
  """The first `counts` ids of each row."""
  starts = ids.row_starts()
  places = tf.ragged.range(starts, starts + counts)
  return places.with_values(tf.gather(ids.values, places.values))
