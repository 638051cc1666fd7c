"""SQuAD: files to questions to windows of ids.

`read_squad_examples` reads the JSON of SQuAD 1.1 or 2.0, `make_windows` lays
windows over the contexts: `[CLS] question [SEP] part of the context [SEP]`, as
upstream's run_squad.py does, field for field. `Windows` also knows the words
and characters that each token was made of, to turn an answer into text again.

Nothing here needs TensorFlow before `make_windows`.
"""

import bisect
import dataclasses
import hashlib
import io
import itertools
import json
import os
import re
import reprlib
import typing
import unicodedata

import numpy as np
import tqdm

import tokenization
from bert_keras3.data import files
from bert_keras3.data import sequences

# The id of a file's first window; a number upstream's records begin with.
FIRST_UNIQUE_ID = 1000000000
# Questions that had to be left out are listed up to this many.
SHOWN_LOST_ANSWERS = 5
MIN_EXAMPLES_FOR_BAR = 100
# Words of a context as upstream separates them: NBSP, U+2009 and U+3000 belong
# to a word, "42\xa0km" is one.
_WORD = re.compile("[^ \t\r\n\u202f]+")
_ASCII_WORD = re.compile("[!-~]+")
# Longer words are not cached, as in tokenization.py.
_MAX_MEMO_CHARS = 32
# Part of every cache key: raise it when the output of `make_windows` changes.
_CACHE_VERSION = 1


# Examples ---------------------------------------------------------------------


@dataclasses.dataclass(repr=False)
class SquadExample:
  """A question about a text; the first seven fields are upstream's.

  `start_position` and `end_position` are the words of the answer, -1 if the
  question is impossible, None for prediction. `answers` holds the text of every
  annotated answer. `context` is the text as it stands in the file, word i of
  `doc_tokens` begins at its character `word_offsets[i]`; by default it is the
  words with a space between them.
  """

  qas_id: str
  question_text: str
  doc_tokens: list[str]
  orig_answer_text: str | None = None
  start_position: int | None = None
  end_position: int | None = None
  is_impossible: bool = False
  context: str | None = None
  word_offsets: list[int] | None = None
  answers: list[str] = dataclasses.field(default_factory=list)

  def __post_init__(self):
    if self.context is None:
      self.context = " ".join(self.doc_tokens)
    if self.word_offsets is None:
      self.word_offsets = []
      position = 0
      for word in self.doc_tokens:
        position = self.context.index(word, position)
        self.word_offsets.append(position)
        position += len(word)

  def __repr__(self):
    # As upstream, which leaves out the rest for a start of 0 too.
    text = (
      f"qas_id: {self.qas_id}, question_text: {self.question_text}, "
      f"doc_tokens: [{' '.join(self.doc_tokens)}]"
    )
    if self.start_position:
      text += (
        f", start_position: {self.start_position}"
        f", end_position: {self.end_position}"
        f", is_impossible: {self.is_impossible}"
      )
    return text


def split_words(context):
  """Splits a context into words as upstream does.

  Returns:
    (list of words, list of their first characters' numbers).
  """
  matches = list(_WORD.finditer(context))
  return [x.group() for x in matches], [x.start() for x in matches]


# Reading files ----------------------------------------------------------------


class _Place(typing.NamedTuple):
  """A position in a file, for error messages; numbers count from 1."""

  path: str
  article: int | None = None
  paragraph: int | None = None
  question: str | None = None

  def __str__(self):
    parts = zip(self._fields[1:], self[1:], strict=True)
    within = (f", {name} {x}" for name, x in parts if x is not None)
    return f"{self.path}{''.join(within)}"


_KINDS = {
  bool: "true or false",
  dict: "an object",
  int: "a whole number",
  list: "a list",
  str: "a text",
}


def _require(value, kind, name, place):
  # To Python, true and false are numbers as well.
  if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
    raise ValueError(
      f"{place}: {name} should be {_KINDS[kind]}, not {reprlib.repr(value)}; "
      "mend the file"
    )
  return value


def _get(record, key, kind, place):
  """Returns the value of a key of a JSON object, checked."""
  _require(record, dict, f"the value with the key {key!r}", place)
  if key not in record:
    keys = reprlib.repr(list(record))
    raise ValueError(
      f"{place}: the key {key!r} is missing among {keys}; mend the file"
    )
  return _require(record[key], kind, repr(key), place)


def _load_json(path):
  with tokenization.open_bytes(path) as file:
    content = file.read()
  try:
    return files.parse_json(content)
  except json.JSONDecodeError as error:
    place, problem = f"line {error.lineno}, column {error.colno}", error.msg
  except UnicodeDecodeError as error:
    line = content.count(b"\n", 0, error.start) + 1
    place = f"line {line}"
    problem = f"not {error.encoding}, byte {content[error.start]:#04x}"
  except ValueError as error:
    place, problem = "somewhere", str(error)
  raise ValueError(
    f"{path}, {place}: not valid JSON ({problem}); mend the file, or get it "
    "again if it was cut off"
  )


@dataclasses.dataclass(frozen=True)
class _Paragraph:
  """A context and its words."""

  context: str
  words: list[str]
  offsets: list[int]

  def locate(self, text, start, recover):
    """Returns the (first, last) word of an answer, None if it is elsewhere.

    Upstream compares the words with the answer as `str.split` splits it, which
    knows more kinds of white space, and finds no word at white space that comes
    before the first one. `recover` mends both.
    """
    stop = start + len(text)
    if not text.strip() or not 0 <= start < stop <= len(self.context):
      return None
    first = bisect.bisect_right(self.offsets, start) - 1
    last = bisect.bisect_right(self.offsets, stop - 1) - 1
    wanted = " ".join(text.split())
    passage = " ".join(self.words[first : last + 1])
    if recover and wanted not in passage:
      passage = " ".join(self.words[max(first, 0) : last + 1])
      passage = " ".join(passage.split())
    return (max(first, 0), last) if wanted in passage else None


def _questions(path):
  """Yields (_Paragraph, _Place, question as in the file)."""
  articles = _get(_load_json(path), "data", list, _Place(path))
  for article_number, article in enumerate(articles, start=1):
    place = _Place(path, article_number)
    entries = _get(article, "paragraphs", list, place)
    for paragraph_number, entry in enumerate(entries, start=1):
      place = _Place(path, article_number, paragraph_number)
      context = _get(entry, "context", str, place)
      paragraph = _Paragraph(context, *split_words(context))
      for number, question in enumerate(_get(entry, "qas", list, place), 1):
        yield paragraph, place._replace(question=f"number {number}"), question


def read_squad_examples(
  input_file, is_training, version_2_with_negative=False, recover_answers=True
):
  """Reads the questions of a file in SQuAD's layout.

  For training, a question whose answer is not in the context where
  `answer_start` says is left out, as upstream does; their number is printed.

  Args:
    input_file: the JSON file, local or remote.
    is_training: whether to locate the answer in the context; then each question
      must have exactly one. If not, all answers are read, for scoring, and
      there may be none.
    version_2_with_negative: whether `is_impossible` is read, for training.
    recover_answers: whether to keep answers that upstream loses for their white
      space: NBSP, U+2009, U+3000 and the like inside, or an answer_start before
      the first word.

  Returns:
    List of SquadExample, in the file's order.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not JSON, a key is missing or of a wrong type, a question
      for training has not exactly one answer, or no question is left; names the
      file and the position.
  """
  examples, lost = [], []
  for paragraph, place, question in _questions(input_file):
    place, example = _make_example(paragraph, place, question)
    if not is_training:
      example.answers = _answer_texts(question, place)
    elif version_2_with_negative and _is_impossible(question, place):
      _set_answer(example, "", (-1, -1), is_impossible=True)
    else:
      text, start = _only_answer(question, place)
      words = paragraph.locate(text, start, recover_answers)
      if not words:
        lost.append(
          f"question {example.qas_id!r}: {reprlib.repr(text)} at {start}"
        )
        continue
      _set_answer(example, text, words)
    examples.append(example)
  _report_lost_answers(input_file, lost, len(examples))
  return examples


def _make_example(paragraph, place, question):
  """Makes a SquadExample without an answer, and its _Place."""
  qas_id = _get(question, "id", str, place)
  place = place._replace(question=repr(qas_id))
  example = SquadExample(
    qas_id,
    _get(question, "question", str, place),
    paragraph.words,
    context=paragraph.context,
    word_offsets=paragraph.offsets,
  )
  return place, example


def _set_answer(example, text, words, is_impossible=False):
  example.orig_answer_text = text
  example.start_position, example.end_position = words
  example.is_impossible = is_impossible
  example.answers = [] if is_impossible else [text]


def _is_impossible(question, place):
  return _get(question, "is_impossible", bool, place)


def _answer_texts(question, place):
  """Returns all annotated texts; a test file has none, not even the key."""
  if "answers" not in question:
    return []
  answers = _get(question, "answers", list, place)
  return [_get(answer, "text", str, place) for answer in answers]


def _only_answer(question, place):
  """Returns (text, number of its first character) of the only answer."""
  answers = _get(question, "answers", list, place)
  if len(answers) != 1:
    remedy = "keep one of them"
    if not answers:
      remedy = "give it one, or pass --version_2_with_negative if it has none"
    raise ValueError(
      f"{place}: training needs exactly one answer, there are {len(answers)}; "
      f"{remedy}"
    )
  text = _get(answers[0], "text", str, place)
  return text, _get(answers[0], "answer_start", int, place)


def _report_lost_answers(path, lost, num_kept):
  """Says which questions were left out.

  Raises:
    ValueError: none is left.
  """
  if lost:
    more = ["..."] if len(lost) > SHOWN_LOST_ANSWERS else []
    shown = "\n  ".join(lost[:SHOWN_LOST_ANSWERS] + more)
    print(
      f"{path}: {len(lost)} of {len(lost) + num_kept} questions left out, as "
      f"their answers are not where answer_start says\n  {shown}"
    )
  if not num_kept:
    raise ValueError(f"{path} holds no question to use; check the file")


# Tokens of a context ----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Document:
  """A context as word pieces."""

  ids: list[int]
  # The number of every word's first piece, then the count of all pieces.
  first_pieces: list[int]
  # int32 [3, pieces]: the word, its first character, the one after the last.
  columns: np.ndarray


class _AlignedWords(dict):
  """A cache of the results of `align_pieces` by word."""

  def __init__(self, tokenizer):
    super().__init__()
    self._tokenizer = tokenizer

  def __missing__(self, word):
    aligned = align_pieces(word, self._tokenizer)
    # A Chinese sentence is one word, and hardly ever occurs again.
    if len(word) <= _MAX_MEMO_CHARS:
      self[word] = aligned
    return aligned


class _DocumentTokenizer:
  """Turns contexts into _Documents; tokenises each context and word once."""

  def __init__(self, tokenizer):
    self._words = _AlignedWords(tokenizer)
    self._documents = {}

  def __call__(self, example):
    """Returns the _Document of a SquadExample."""
    # Questions of a paragraph share the list, so its id is the key. The list is
    # kept, so that no other one can get its id.
    words = example.doc_tokens
    known = self._documents.get(id(words))
    if known is None:
      known = words, self._tokenize(words, example.word_offsets)
      self._documents[id(words)] = known
    return known[1]

  def _tokenize(self, words, offsets):
    aligned = [self._words[word] for word in words]
    counts = [len(ids) for ids, _, _ in aligned]
    ids, starts, ends = (
      list(itertools.chain.from_iterable(x[i] for x in aligned))
      for i in range(3)
    )
    word_index = np.repeat(np.arange(len(words)), counts)
    shift = np.array(offsets, np.int32)[word_index]
    columns = np.array([word_index, starts + shift, ends + shift], np.int32)
    return _Document(ids, [0, *itertools.accumulate(counts)], columns)


def align_pieces(text, tokenizer):
  """Returns the word pieces of a text, and the characters each was made of.

  Lower-casing and stripping accents change a text's length, and both go by code
  point, so every code point is followed on its own. Accents that a piece lost
  belong to it. Pieces that share a character both have it (two halves of a
  Hangul syllable).

  Args:
    text: str.
    tokenizer: tokenization.FullTokenizer.

  Returns:
    Lists (ids, first characters, characters after the last), equally long. If
    its characters cannot be followed, each piece has the whole text.
  """
  words = tokenizer.basic_tokenizer.tokenize(text)
  origins = _follow_characters(text, words, tokenizer.basic_tokenizer.table)
  pieces, starts, ends = [], [], []
  position = 0
  for word in words:
    of_word = tokenizer.wordpiece_tokenizer.tokenize(word)
    pieces += of_word
    for first, stop in _piece_bounds(word, of_word):
      starts.append(origins[position + first][0])
      ends.append(origins[position + stop - 1][1])
    position += len(word)
  return tokenizer.convert_tokens_to_ids(pieces), starts, ends


def _piece_bounds(word, pieces):
  """Returns the bounds of a normalised word's pieces in the word."""
  if len(pieces) == 1:  # Perhaps the unknown token.
    return [(0, len(word))]
  stops = [len(pieces[0])]
  for piece in pieces[1:]:
    stops.append(stops[-1] + len(piece) - len("##"))
  return list(zip([0, *stops], stops, strict=False))


def _follow_characters(text, words, table):
  """Finds where each character of a text's normalised words comes from.

  Returns:
    List of (first, stop) in `text`, for each character of the `words`.
  """
  # Most words: each character stays one.
  if _ASCII_WORD.fullmatch(text):
    return [(number, number + 1) for number in range(len(text))]
  made, origins = [], []
  for number, char in enumerate(text):
    replacement = table[ord(char)]
    if replacement == tokenization.NEEDS_CONTEXT:
      replacement = table.alone(ord(char))
    kept = "".join(replacement.split())
    made.append(kept)
    origins += [(number, number + 1)] * len(kept)
    if not kept and origins and unicodedata.category(char) == "Mn":
      origins[-1] = (origins[-1][0], number + 1)
  if _fold_sigma("".join(made)) == _fold_sigma("".join(words)):
    return origins
  # Normalising has reordered the marks of a letter.
  return [(0, len(text))] * sum(map(len, words))


def _fold_sigma(text):
  return text.replace("\u03c2", "\u03c3")


# Windows ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
  """All windows of a file, in the order of its questions.

  Arrays of one entry per window, and of one per document token of every window,
  concatenated: those of window i are `word_starts[i]` to `word_starts[i + 1]`.
  Its id is `FIRST_UNIQUE_ID + i`.

  Attributes:
    num_examples: number of the questions, those without a window included.
    sequences: sequences.Sequences, the ids.
    example_index: int32 [windows], the question of each.
    doc_span_index: int32 [windows], counts the windows of a question.
    first_doc_token: int32 [windows], position of the first document token.
    word_starts: int64 [windows + 1].
    word_index: int32 [document tokens], word each belongs to, upstream's
      token_to_orig_map.
    is_max_context: bool [document tokens], whether no other window has more
      context on both sides of the token.
    char_starts: int32 [document tokens], first character of `context`.
    char_ends: int32 [document tokens], the character after its last.
    start_positions: int32 [windows], first token of the answer; 0 if it is not
      in the window as a whole, and for prediction.
    end_positions: int32 [windows], its last token, or 0.
    is_impossible: bool [windows].
  """

  num_examples: int
  sequences: sequences.Sequences
  example_index: np.ndarray
  doc_span_index: np.ndarray
  first_doc_token: np.ndarray
  word_starts: np.ndarray
  word_index: np.ndarray
  is_max_context: np.ndarray
  char_starts: np.ndarray
  char_ends: np.ndarray
  start_positions: np.ndarray
  end_positions: np.ndarray
  is_impossible: np.ndarray

  def __len__(self):
    return len(self.example_index)

  @property
  def unique_ids(self):
    """Returns int64 [windows], the id of each."""
    return FIRST_UNIQUE_ID + np.arange(len(self))


def make_windows(
  examples,
  tokenizer,
  max_seq_length,
  doc_stride,
  max_query_length,
  is_training,
):
  """Lays windows over the contexts of questions.

  The windows are those of upstream's convert_examples_to_features. A context
  without a token has no window.

  Args:
    examples: list of SquadExample.
    tokenizer: tokenization.FullTokenizer.
    max_seq_length: tokens of a window at most, question included.
    doc_stride: tokens from the start of one window to that of the next.
    max_query_length: tokens of a question that are kept.
    is_training: whether the examples have positions.

  Returns:
    Windows.

  Raises:
    ValueError: a question leaves no room for its context, or doc_stride is not
      positive.
  """
  if doc_stride < 1:
    raise ValueError(f"doc_stride is {doc_stride}; it must be 1 or more")
  to_document = _DocumentTokenizer(tokenizer)
  collector = _WindowCollector(tokenizer, max_seq_length, doc_stride)
  # No bar for a few examples; the length of a generator is not known.
  is_short = isinstance(examples, list) and len(examples) < MIN_EXAMPLES_FOR_BAR
  no_bar = is_short or None
  for example in tqdm.tqdm(examples, "making windows", disable=no_bar):
    query = tokenizer.encode(example.question_text)[:max_query_length]
    document = to_document(example)
    answer = None
    if is_training and not example.is_impossible:
      answer = _find_answer(example, document, tokenizer)
    collector.add(example, query, document, answer)
  return collector.finish()


class _WindowCollector:
  """Collects the windows of one question after the other."""

  def __init__(self, tokenizer, max_seq_length, doc_stride):
    self._special_ids = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])
    self._max_seq_length = max_seq_length
    self._doc_stride = doc_stride
    self._num_examples = 0
    # Of each window: ids, numbers, the document's columns, upstream's flags.
    self._packed, self._rows, self._is_impossible = [], [], []
    self._columns = [np.zeros([3, 0], np.int32)]
    self._is_max_context = [np.zeros([0], bool)]

  def add(self, example, query, document, answer):
    """Adds a question: its ids, its _Document, pieces of the answer or None."""
    room = self._room(example, query)
    num_tokens = len(document.ids)
    best = best_windows(num_tokens, room, self._doc_stride)
    spans = window_spans(num_tokens, room, self._doc_stride)
    for number, (start, stop) in enumerate(spans):
      ids, first = sequences.pack_pair(
        query, document.ids[start:stop], *self._special_ids
      )
      answer_positions = _shift_answer(answer, start, stop, first)
      self._packed.append((ids, first))
      self._rows.append((self._num_examples, number, *answer_positions))
      self._columns.append(document.columns[:, start:stop])
      self._is_max_context.append(best[start:stop] == number)
    self._is_impossible += [example.is_impossible] * len(spans)
    self._num_examples += 1

  def _room(self, example, query):
    room = self._max_seq_length - len(query) - 3
    if room < 1:
      raise ValueError(
        f"question {example.qas_id!r} has {len(query)} tokens and leaves no "
        f"room for its context among {self._max_seq_length}; lower "
        "--max_query_length"
      )
    return room

  def finish(self):
    """Returns the Windows of all questions added."""
    packed = sequences.Sequences(self._packed)
    rows = np.array(self._rows, np.int32).reshape([-1, 4]).T
    columns = np.concatenate(self._columns, axis=1)
    counts = [x.shape[1] for x in self._columns]  # Begins with 0.
    return Windows(
      num_examples=self._num_examples,
      sequences=packed,
      example_index=rows[0],
      doc_span_index=rows[1],
      first_doc_token=packed.num_first,
      word_starts=np.cumsum(counts, dtype=np.int64),
      word_index=columns[0],
      is_max_context=np.concatenate(self._is_max_context),
      char_starts=columns[1],
      char_ends=columns[2],
      start_positions=rows[2],
      end_positions=rows[3],
      is_impossible=np.array(self._is_impossible, bool),
    )


def _find_answer(example, document, tokenizer):
  """Finds the first and the last piece of a question's answer.

  As upstream's _improve_answer_span: within the answer's words, the first run
  of pieces that equals the answer's own pieces, else all pieces of the words.
  "1861" within "(1861-1943)." is found, "Japan" within "Japanese" is not.
  """
  first = document.first_pieces[example.start_position]
  last = document.first_pieces[example.end_position + 1] - 1
  wanted = tokenizer.encode(example.orig_answer_text)
  if wanted:
    for start in range(first, last - len(wanted) + 2):
      if document.ids[start : start + len(wanted)] == wanted:
        return start, start + len(wanted) - 1
  return first, last


def _shift_answer(answer, start, stop, first_doc_token):
  """Returns an answer's positions in a window, (0, 0) if it is not all inside.

  Windows without the answer are trained on too, although a comment of
  upstream's says that they are thrown out.
  """
  if answer is None or answer[0] < start or answer[1] >= stop:
    return 0, 0
  shift = first_doc_token - start
  return answer[0] + shift, answer[1] + shift


def window_spans(num_tokens, room, doc_stride):
  """Computes where a document's windows begin and end.

  Args:
    num_tokens: tokens of the document.
    room: tokens of it in a window at most.
    doc_stride: from one start to the next; `room` if that is less.

  Returns:
    List of (start, stop); empty for a document without a token.
  """
  if not num_tokens:
    return []
  stride = min(room, doc_stride)
  starts = range(0, max(0, num_tokens - room) + stride, stride)
  return [(start, min(start + room, num_tokens)) for start in starts]


def best_windows(num_tokens, room, doc_stride):
  """Finds the window with the most context for each token of a document.

  As upstream's _check_is_max_context, without a loop over the windows. The
  context is the smaller of the two sides, plus a hundredth of the window's
  length; of equal windows the first counts. All windows but the last are
  equally long, so the best of them is the one whose middle is nearest.

  Returns:
    int array [num_tokens], numbers of windows as `window_spans` counts them.
  """
  positions = np.arange(num_tokens)
  if num_tokens <= room:
    return np.zeros_like(positions)
  stride = min(room, doc_stride)
  last = -(-(num_tokens - room) // stride)
  # Half way between two middles the first one is taken.
  nearest = -((room - 1 + stride - 2 * positions) // (2 * stride))
  nearest = np.clip(nearest, 0, last - 1)
  score = _context_score(positions, nearest * stride, room)
  last_start = last * stride
  last_score = _context_score(positions, last_start, num_tokens - last_start)
  return np.where(last_score > score, last, nearest)


def _context_score(positions, starts, length):
  """Computes upstream's score, rounded alike to decide ties; -inf outside."""
  left = positions - starts
  right = length - 1 - left
  score = np.minimum(left, right) + 0.01 * length
  return np.where((left >= 0) & (right >= 0), score, -np.inf)


# A cache on disk --------------------------------------------------------------


def cache_key(file, vocab_file, settings):
  """Returns the SHA-256, in hexadecimal, of all that windows depend on.

  Args:
    file: the JSON file; its content counts, not its name or time.
    vocab_file: likewise.
    settings: dict of the other arguments, JSON-serialisable.

  Raises:
    FileNotFoundError: there is no such file.
  """
  parts = [
    _CACHE_VERSION,
    unicodedata.unidata_version,  # Decides what is a letter.
    _file_digest(file),
    _file_digest(vocab_file),
    settings,
  ]
  text = json.dumps(parts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _file_digest(path):
  digest = hashlib.sha256()
  with tokenization.open_bytes(path) as file:
    while chunk := file.read(1 << 20):
      digest.update(chunk)
  return digest.hexdigest()


def save_windows(path, windows, key):
  """Writes Windows as an .npz file, whole or not at all.

  Args:
    path: where, local or remote.
    windows: Windows.
    key: str from `cache_key`, which `load_windows` compares.
  """
  arrays = dict(vars(windows))
  packed = arrays.pop("sequences")
  content = io.BytesIO()
  np.savez_compressed(
    content,
    key=key,
    flat_ids=packed.flat_ids,
    lengths=packed.lengths,
    **arrays,
  )
  files.write_atomically(path, content.getvalue())


def load_windows(path, key):
  """Reads Windows that `save_windows` wrote.

  Returns:
    Windows; None if there is no file, if it has another key, or if it is
    damaged, which is printed.
  """
  try:
    with tokenization.open_bytes(path) as file:
      content = io.BytesIO(file.read())
    arrays = dict(np.load(content))
    if arrays.pop("key") != key:
      return None
    packed = sequences.Sequences.from_arrays(
      arrays.pop("flat_ids"), arrays.pop("lengths"), arrays["first_doc_token"]
    )
    num_examples = int(arrays.pop("num_examples"))
    return Windows(num_examples, packed, **arrays)
  except FileNotFoundError:
    return None
  # A damaged zip file makes zipfile and NumPy raise almost anything.
  except Exception as error:
    print(f"{path} is damaged and is made again ({error})")
    return None


def cached_windows(directory, name, key, build):
  """Loads Windows from the cache of a run, or makes and saves them.

  Args:
    directory: output_directory.OutputDirectory.
    name: of an .npz file in it.
    key: from `cache_key`.
    build: function that makes the Windows.
  """
  windows = load_windows(os.path.join(directory.path, name), key)
  if windows is None:
    windows = build()
    directory.save(name, lambda path: save_windows(path, windows, key))
  return windows
