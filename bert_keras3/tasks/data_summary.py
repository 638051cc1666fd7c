"""Facts about texts, labels, windows and answers that a dry run reports."""

import numpy as np

# Above this share of truncated texts a dry run warns.
MAX_TRUNCATED = 0.2


def tell_splits(findings, config, data, tokenizer):
  """Reports the lengths of a classifier's texts and its numbers of labels.

  Args:
    findings: dry_run.Findings.
    config: ClassifierConfig.
    data: classifier_data.Data.
    tokenizer: tokenization.FullTokenizer.
  """
  for name, split in data.splits.items():
    lengths = text_lengths(split, tokenizer)
    tell_texts(findings, name, lengths, config.max_seq_length, config.long_text)
  if data.train:
    tell_labels(findings, "train", data.task.labels, data.train.labels)


def tell_questions(findings, config, data):
  """Reports how windows cover questions and texts, and lost answers.

  Args:
    findings: dry_run.Findings.
    config: SquadConfig.
    data: squad_results.Data.
  """
  windows = {
    "train_file": data.train_windows,
    "predict_file": data.questions and data.questions.windows,
  }
  for name in [name for name in windows if windows[name]]:
    tell_windows(
      findings,
      name,
      windows[name],
      config.max_seq_length,
      config.doc_stride,
      config.max_query_length,
    )
  if data.train_windows:
    tell_answers(findings, "train_file", data.train_windows)


def text_lengths(split, tokenizer):
  """Counts the tokens of examples before truncation.

  Args:
    split: classifier_data.Split.
    tokenizer: tokenization.FullTokenizer.

  Returns:
    int64 [examples], `[CLS]` and `[SEP]` included.
  """
  lengths = np.zeros(len(split.examples), np.int64)
  np.maximum.at(lengths, split.owners, split.source.lengths)
  # Truncated texts have the greatest length, and windows of longer texts too.
  for number in np.flatnonzero(lengths == lengths.max(initial=0)).tolist():
    example = split.examples[number]
    num_a, num_b = (
      len(tokenizer.encode(text)) if text else 0
      for text in (example.text_a, example.text_b)
    )
    lengths[number] = num_a + 2 + (num_b + 1 if num_b else 0)
  return lengths


def tell_texts(findings, name, lengths, max_seq_length, long_text="truncate"):
  """Reports how long texts are, and warns if many are truncated.

  Args:
    findings: Findings.
    name: of the texts.
    lengths: int array [texts], tokens of each before truncation.
    max_seq_length: tokens of a sequence at most.
    long_text: one of classifier_data.LONG_TEXT.
  """
  if not len(lengths):
    findings.tell(name, "no texts")
    return
  share = np.mean(lengths > max_seq_length)
  fate = "read in windows" if long_text == "sliding" else "truncated"
  findings.tell(
    name,
    f"{len(lengths)} examples, the longest of {lengths.max()} tokens, "
    f"{share:.1%} longer than --max_seq_length={max_seq_length} and {fate}",
  )
  if share > MAX_TRUNCATED and fate == "truncated":
    findings.warn(
      f"{share:.0%} of the texts of {name} are truncated; raise "
      "--max_seq_length, or pass --long_text=sliding"
    )


def tell_labels(findings, name, names, labels):
  """Reports how often each label occurs, and warns of labels that never do.

  Args:
    findings: Findings.
    name: of the examples.
    names: sequence of str, empty for scores.
    labels: as of classifier_data.label_ids.
  """
  if not names:
    findings.tell(
      f"scores of {name}",
      f"{labels.min():g} to {labels.max():g}, mean {labels.mean():.4g}",
    )
    return
  # A row of 0 and 1 may have several labels.
  numbers = labels if labels.ndim == 1 else np.nonzero(labels)[1]
  counts = np.bincount(numbers, minlength=len(names)).tolist()
  pairs = list(zip(names, counts, strict=True))
  findings.tell(
    f"labels of {name}", ", ".join(f"{x} {count}" for x, count in pairs)
  )
  absent = [x for x, count in pairs if not count]
  if absent:
    findings.warn(f"no example of {name} has the label {', '.join(absent)}")


def tell_windows(
  findings, name, windows, max_seq_length, doc_stride, max_query_length
):
  """Reports how questions and their texts fill windows.

  Args:
    findings: Findings.
    name: of the file.
    windows: squad_data.Windows.
    max_seq_length: tokens of a window at most.
    doc_stride: tokens from the start of one window to that of the next.
    max_query_length: tokens of a question that are kept.
  """
  num_query = windows.first_doc_token - 2
  room = max_seq_length - num_query - 3
  starts = windows.doc_span_index * np.minimum(room, doc_stride)
  ends = starts + np.diff(windows.word_starts)
  is_first = windows.doc_span_index == 0
  split = len(set(windows.example_index[~is_first].tolist()))
  findings.tell(
    name,
    f"{windows.num_examples} questions in {len(windows)} windows, the longest "
    f"text of {ends.max(initial=0)} tokens, "
    f"{split / windows.num_examples:.1%} of the texts in several windows",
  )
  cut = np.sum(is_first & (num_query >= max_query_length))
  share = cut / windows.num_examples
  if share > MAX_TRUNCATED:
    findings.warn(
      f"{share:.0%} of the questions of {name} have {max_query_length} tokens "
      "or more and are cut there; raise --max_query_length"
    )


def tell_answers(findings, name, windows):
  """Reports how many answers there are to learn, and warns of lost ones.

  Args:
    findings: Findings.
    name: of the file.
    windows: squad_data.Windows, for training.
  """
  total = windows.num_examples
  has_answer, is_impossible = np.zeros([2, total], bool)
  has_answer[windows.example_index[windows.start_positions > 0]] = True
  is_impossible[windows.example_index[windows.is_impossible]] = True
  lost = np.mean(~has_answer & ~is_impossible)
  findings.tell(
    f"answers of {name}",
    f"{is_impossible.mean():.1%} of the questions have none, those of "
    f"{lost:.1%} lie in no window as a whole",
  )
  if lost > MAX_TRUNCATED:
    findings.warn(
      f"{lost:.0%} of the answers of {name} lie in no window as a whole and "
      "are not learnt; lower --doc_stride, or raise --max_seq_length"
    )
