"""Reads files of labelled texts: tab-separated, CSV, JSON lines.

A reader of `READERS` turns a file into rows of fields, a `Layout` says which
fields are texts and label, and `read_examples` makes `InputExample`s of them.
Errors name the file and line of a row that cannot be used.

Nothing here needs TensorFlow.
"""

import csv
import dataclasses
import io
import json
import re

import numpy as np

import tokenization
from bert_keras3.data import files

# Rows of a file that could not be used are listed up to this many.
SHOWN_BAD_ROWS = 5
# As in upstream's extract_features.py: the last " ||| " separates the texts.
_PAIR = re.compile(r"(.*) \|\|\| (.*)", re.DOTALL)


# Examples ---------------------------------------------------------------------


@dataclasses.dataclass
class InputExample:
  """Holds one text, or a pair, with its label.

  `label` is a string, a float for regression, a tuple of strings for multiple
  labels; None if unknown. `row_id` is the example's id in a submission.
  """

  guid: str | None
  text_a: str
  text_b: str | None = None
  label: str | float | tuple[str, ...] | None = None
  row_id: str | None = None


class BadRow(ValueError):
  """Says why a row cannot be used; `read_examples` adds file and line."""


# Reading files ----------------------------------------------------------------
# A reader takes a path and yields (line number, fields): a list of strings, a
# dict, or a BadRow in place of fields that could not be parsed.


def _read_glue(path):
  """Reads tab-separated fields, without quoting, in lines as of GFile."""
  for number, line in enumerate(tokenization.read_lines(path), start=1):
    if number == 1:
      line = line.removeprefix("\ufeff")
    if line:
      yield number, line.split("\t")


def _read_tsv(path):
  """Reads tab-separated fields, without quoting (text/tab-separated-values)."""
  for number, line in _universal_lines(path):
    yield number, line.split("\t")


def _read_csv(path):
  """Reads comma-separated fields, with double quotes (RFC 4180)."""
  # Python's own limit, 131,072 characters, is not part of the format.
  csv.field_size_limit(2**31 - 1)
  text = read_text(path)
  lines = io.StringIO(text, newline=_line_end(text))
  reader = csv.reader(lines, strict=True)
  while True:
    number = reader.line_num + 1
    try:
      fields = next(reader)
    except StopIteration:
      return
    except csv.Error as error:
      fields = BadRow(f"not valid CSV ({error})")
    if fields:
      yield number, fields


def _read_jsonl(path):
  """Reads a JSON object from each line."""
  for number, line in _universal_lines(path):
    try:
      fields = files.parse_json(line)
    except ValueError as error:
      fields = BadRow(f"not valid JSON ({error})")
    if not isinstance(fields, (dict, BadRow)):
      fields = BadRow("not a JSON object")
    yield number, fields


def _read_toutiao(path):
  """Reads fields separated by `_!_`, the first published layout of TNEWS."""
  for number, line in _universal_lines(path):
    yield number, line.split("_!_")


READERS = {
  "glue": _read_glue,
  "tsv": _read_tsv,
  "csv": _read_csv,
  "jsonl": _read_jsonl,
  "toutiao": _read_toutiao,
}
# Formats in which every row must have the first row's number of fields. GLUE's
# own files need only have the columns that are used, as in upstream.
STRICT_FORMATS = ("tsv", "csv")


def _universal_lines(path):
  """Yields (number, line) of the lines that are not empty."""
  text = read_text(path)
  for number, line in enumerate(text.split(_line_end(text)), start=1):
    line = line.removesuffix("\r")
    if line:
      yield number, line


def _line_end(text):
  """Returns the end of a text's lines: LF (or CRLF), else CR."""
  return "\n" if "\n" in text else "\r"


def read_text(path):
  """Reads a whole UTF-8 file, without its byte order mark if it has one.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not UTF-8.
  """
  with tokenization.open_bytes(path) as file:
    content = file.read()
  try:
    return content.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line_end = b"\n" if b"\n" in content else b"\r"
    line = content.count(line_end, 0, error.start) + 1
    raise ValueError(
      f"{path}, line {line}: not UTF-8 (byte {content[error.start]:#04x}); "
      "convert the file, for example with iconv"
    ) from None


def split_pair(line):
  """Splits a line into its text, or into two texts at " ||| ".

  White space around the line is stripped first, as in upstream: "a ||| " is the
  single text "a |||".

  Returns:
    (first text, second text or None).
  """
  line = line.strip()
  match = _PAIR.fullmatch(line)
  return match.groups() if match else (line, None)


# Fields of a row --------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Layout:
  """Declares a file's columns, by number from 0 (-1 is the last) or by name."""

  text_a: int | str
  text_b: int | str | None = None
  # One column, or for multi_label several that hold 0 or 1.
  label: int | str | tuple[int | str, ...] | None = None
  row_id: int | str | None = None
  file_format: str = "glue"
  has_header: bool = True
  where: tuple[int | str, str] | None = None  # (column, its value in our rows)
  renamed_labels: tuple[tuple[str, str], ...] = ()  # (in the file, in the task)
  unlabeled: str | None = None  # label of rows that annotators disagreed on
  label_separator: str = ","  # between the labels of a multi_label row
  # How upstream makes guids: whether it counts the header, and the prefix.
  counts_header_row: bool = False
  guid_prefix: str | None = None  # the split's name if None


class _Columns:
  """Finds a layout's fields in the rows of one file."""

  def __init__(self, path, header, is_table):
    self.path = path
    self.header = header  # list of names, or None
    self.is_table = is_table

  def require(self, column):
    """Checks, once per file, that it can have a column.

    Raises:
      ValueError: the header has no such column.
    """
    if column is None or not self.is_table:
      return
    position = self._position(column)
    if self.header is None:
      if isinstance(position, str):
        raise ValueError(
          f"{self.path} has no header to find column {column!r} in; columns "
          "are numbers from 0"
        )
    elif isinstance(position, str) or not (
      -len(self.header) <= position < len(self.header)
    ):
      raise ValueError(
        f"{self.path} has no column {column!r}; its columns are "
        + ", ".join(map(repr, self.header))
      )

  def get(self, fields, column):
    """Returns a row's field in a column; raises BadRow if there is none."""
    position = column if isinstance(fields, dict) else self._position(column)
    try:
      return fields[position]
    except (IndexError, KeyError, TypeError):
      count = f"{len(fields)} fields"
      if isinstance(fields, dict):
        count = "the keys " + (", ".join(map(repr, fields)) or "none")
      raise BadRow(f"no column {column!r}; it has {count}") from None

  def check_count(self, fields, expected):
    """Raises BadRow if a row has more or fewer fields than the first."""
    if len(fields) != expected:
      raise BadRow(f"{len(fields)} fields, but the first row has {expected}")

  def _position(self, column):
    """Returns the number of a column, or its name if it has no number."""
    if self.header and column in self.header:
      return self.header.index(column)
    try:
      return int(column)
    except ValueError:
      return column


def read_examples(
  path,
  layout,
  split,
  problem_type="single_label",
  labels=None,
  skip_bad_rows=False,
):
  """Reads the examples of a file.

  Args:
    path: the file, local or remote.
    layout: Layout.
    split: its name, for the guid; labels of "test" and "test_..." are not read.
    problem_type: one of PROBLEM_TYPES.
    labels: sequence of the labels allowed; any if None.
    skip_bad_rows: whether to leave out rows that cannot be used, and print
      their number.

  Returns:
    List of InputExample.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a row cannot be used (the message names file and line), or the
      file has no example.
  """
  parse = None
  examples, problems = [], []
  for number, (line, fields) in enumerate(READERS[layout.file_format](path)):
    try:
      if isinstance(fields, BadRow):
        raise fields
      if parse is None:
        parse = _RowParser(path, layout, split, problem_type, labels, fields)
        if parse.columns.header:
          continue
      example = parse(fields, number)
    except BadRow as problem:
      problems.append(f"{path}, line {line}: {problem}")
      if number == 0 and _begins_with_header(layout):
        raise ValueError(f"{problems[0]}; mend the header") from None
      if not skip_bad_rows:
        raise ValueError(
          f"{problems[0]}; mend the row, or pass --skip_bad_rows"
        ) from None
    else:
      if example:
        examples.append(example)
  _report_bad_rows(path, problems)
  if not examples:
    column, value = layout.where or (None, None)
    which = f" with {value!r} in column {column!r}" if layout.where else ""
    raise ValueError(f"{path} holds no example{which}; check the file")
  return examples


def _begins_with_header(layout):
  """Returns whether the first row must name the columns."""
  return layout.has_header and layout.file_format in STRICT_FORMATS


def _report_bad_rows(path, problems):
  if problems:
    shown = "\n  ".join(problems[:SHOWN_BAD_ROWS])
    print(f"{path}: {len(problems)} bad rows skipped\n  {shown}")


class _RowParser:
  """Turns a row's fields into an InputExample."""

  def __init__(self, path, layout, split, problem_type, labels, first_fields):
    is_table = isinstance(first_fields, list)
    header = first_fields if layout.has_header and is_table else None
    self.columns = _Columns(path, header, is_table)
    self.layout = layout
    self.split = split
    self.problem_type = problem_type
    self.labels = None if labels is None else frozenset(labels)
    is_test = split.split("_")[0] == "test"
    self.has_labels = not is_test and layout.label is not None
    self.expected_fields = (
      len(first_fields) if layout.file_format in STRICT_FORMATS else None
    )
    self.label_columns = ()
    if self.has_labels:
      is_one = not isinstance(layout.label, tuple)
      self.label_columns = (layout.label,) if is_one else layout.label
    texts_and_id = (layout.text_a, layout.text_b, layout.row_id)
    for column in (*texts_and_id, *self.label_columns):
      self.columns.require(column)

  def __call__(self, fields, number):
    """Returns the InputExample of a row, None to skip the row."""
    if self.expected_fields is not None:
      self.columns.check_count(fields, self.expected_fields)
    layout = self.layout
    if layout.where:
      column, value = layout.where
      if self.columns.get(fields, column) != value:
        return None
    label = self._label(fields) if self.has_labels else None
    if label is not None and label == layout.unlabeled:
      return None
    if self.columns.header and not layout.counts_header_row:
      number -= 1
    row_id = str(number)
    if layout.row_id is not None:
      row_id = str(self.columns.get(fields, layout.row_id))
    prefix = layout.guid_prefix or self.split
    return InputExample(
      guid=f"{prefix}-{number if layout.counts_header_row else row_id}",
      text_a=self._text(fields, layout.text_a),
      text_b=self._text(fields, layout.text_b),
      label=label,
      row_id=row_id,
    )

  def _text(self, fields, column):
    if column is None:
      return None
    text = self.columns.get(fields, column)
    if not isinstance(text, str):
      raise BadRow(f"column {column!r} holds {text!r}, not a text")
    return text

  def _label(self, fields):
    values = [self.columns.get(fields, x) for x in self.label_columns]
    if self.problem_type == "regression":
      return _parse_score(values[0])
    if self.problem_type == "multi_label":
      return self._label_set(values)
    label = _label_text(values[0])
    label = dict(self.layout.renamed_labels).get(label, label)
    if label != self.layout.unlabeled:
      self._check_known(label)
    return label

  def _label_set(self, values):
    if len(values) > 1:
      chosen = tuple(
        str(column)
        for column, value in zip(self.label_columns, values, strict=True)
        if _parse_flag(column, value)
      )
    elif isinstance(values[0], list):
      chosen = tuple(map(_label_text, values[0]))
    else:
      text = values[0] if isinstance(values[0], str) else _label_text(values[0])
      parts = text.split(self.layout.label_separator)
      chosen = tuple(_label_text(part) for part in parts if part.strip())
    for label in chosen:
      self._check_known(label)
    return chosen

  def _check_known(self, label):
    if self.labels is not None and label not in self.labels:
      known = sorted(self.labels)
      shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
      raise BadRow(f"unknown label {label!r}; the labels are {shown}")


def _label_text(value):
  if value is None:
    raise BadRow("the label is empty")
  if isinstance(value, (list, dict)):
    raise BadRow(f"the label {value!r} is not a single one")
  label = value if isinstance(value, str) else json.dumps(value)
  label = label.strip()
  if not label:
    raise BadRow("the label is empty")
  if "\n" in label or "\r" in label:
    raise BadRow(f"the label {label!r} holds a line break")
  return label


def _parse_score(value):
  try:
    score = float(value)
  # OverflowError: JSON may have an integer that is too large for a float.
  except (TypeError, ValueError, OverflowError):
    score = np.nan
  if not np.isfinite(score):
    raise BadRow(f"the label {value!r} is no number, as regression needs")
  return score


def _parse_flag(column, value):
  text = str(value).strip().lower()
  if text in ("1", "true", "1.0"):
    return True
  if text in ("0", "false", "0.0"):
    return False
  raise BadRow(f"label column {column!r} holds {value!r}, not 0 or 1")
