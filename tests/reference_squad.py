"""SQuAD's decoding the slow way: every pair of indexes, every text anew.

The yardstick of `squad_decoding_test.py` (equal results) and the peer of
`benchmarks/squad_decoding_speed.py` (speed). Its algorithm is that of
google-research/bert's `write_predictions`, and so is its cost, its flaws
included; the tests check it against recorded outputs of the original.
"""

import collections
import math

from tests import reference_tokenization

Feature = collections.namedtuple(
  "Feature", ["tokens", "word_of_token", "has_max_context"]
)
Span = collections.namedtuple(
  "Span", ["feature", "start", "end", "start_logit", "end_logit"]
)
Entry = collections.namedtuple("Entry", ["text", "start_logit", "end_logit"])


def features_by_example(windows, inv_vocab):
  """Returns {example index: [(window number, Feature), ...]}."""
  by_example = collections.defaultdict(list)
  for number, example_index in enumerate(windows.example_index.tolist()):
    length = int(windows.sequences.lengths[number])
    ids = windows.sequences.pad([number], length)["input_ids"][0].tolist()
    begin, end = windows.word_starts[number : number + 2].tolist()
    first = int(windows.first_doc_token[number])
    words = windows.word_index[begin:end].tolist()
    max_context = windows.is_max_context[begin:end].tolist()
    feature = Feature(
      [inv_vocab[x] for x in ids],
      dict(enumerate(words, first)),
      dict(enumerate(max_context, first)),
    )
    by_example[example_index].append((number, feature))
  return by_example


def decode(examples, by_example, start_logits, end_logits, config):
  """Returns predictions, n-best lists and null odds, by question id.

  Args:
    examples: list of SquadExample.
    by_example: of `features_by_example`.
    start_logits: list of lists of float, by window.
    end_logits: likewise.
    config: DecodingConfig.
  """
  predictions, all_nbest, null_odds = {}, {}, {}
  for index, example in enumerate(examples):
    numbered = by_example[index]
    features = [feature for _, feature in numbered]
    logits = [(start_logits[x], end_logits[x]) for x, _ in numbered]
    spans, null = find_spans(features, logits, config)
    entries = choose_entries(example, features, spans, null, config)
    probabilities = softmax([x.start_logit + x.end_logit for x in entries])
    nbest = []
    for entry, probability in zip(entries, probabilities, strict=True):
      nbest.append(
        {
          "text": entry.text,
          "probability": probability,
          "start_logit": entry.start_logit,
          "end_logit": entry.end_logit,
        }
      )
    all_nbest[example.qas_id] = nbest
    if not config.version_2_with_negative:
      predictions[example.qas_id] = nbest[0]["text"]
      continue
    answer = next(entry for entry in entries if entry.text)
    null_score = null.start_logit + null.end_logit
    odds = null_score - answer.start_logit - answer.end_logit
    null_odds[example.qas_id] = odds
    is_null = odds > config.null_score_diff_threshold
    predictions[example.qas_id] = "" if is_null else answer.text
  return predictions, all_nbest, null_odds


def find_spans(features, logits, config):
  """Returns a question's spans, the best first, and its null span."""
  spans = []
  null, lowest = Span(0, 0, 0, 0.0, 0.0), 1000000.0
  for number, feature in enumerate(features):
    starts, ends = logits[number]
    best_starts = best_indexes(starts, config.n_best_size)
    best_ends = best_indexes(ends, config.n_best_size)
    if starts[0] + ends[0] < lowest:
      lowest = starts[0] + ends[0]
      null = Span(number, 0, 0, starts[0], ends[0])
    for start in best_starts:
      for end in best_ends:
        if is_answer(feature, start, end, config.max_answer_length):
          spans.append(Span(number, start, end, starts[start], ends[end]))
  if config.version_2_with_negative:
    spans.append(null)
  spans.sort(key=lambda x: x.start_logit + x.end_logit, reverse=True)
  return spans, null


def best_indexes(values, count):
  """Returns the indexes of the `count` largest values, of equals the first."""
  indexed = sorted(enumerate(values), key=lambda x: x[1], reverse=True)
  best = []
  for index, _ in indexed:
    if len(best) >= count:
      break
    best.append(index)
  return best


def is_answer(feature, start, end, max_answer_length):
  """Whether two positions enclose a part of the window's document."""
  if start >= len(feature.tokens) or end >= len(feature.tokens):
    return False
  if start not in feature.word_of_token or end not in feature.word_of_token:
    return False
  if not feature.has_max_context.get(start, False):
    return False
  if end < start:
    return False
  return end - start + 1 <= max_answer_length


def choose_entries(example, features, spans, null, config):
  """Returns the n-best entries of different texts."""
  entries, seen = [], set()
  for span in spans:
    if len(entries) >= config.n_best_size:
      break
    text = ""
    if span.start > 0:
      text = span_text(example, features[span.feature], span, config)
      if text in seen:
        continue
    seen.add(text)
    entries.append(Entry(text, span.start_logit, span.end_logit))
  if config.version_2_with_negative and "" not in seen:
    entries.append(Entry("", null.start_logit, null.end_logit))
  return entries or [Entry("empty", 0.0, 0.0)]


def span_text(example, feature, span, config):
  """Returns the words of the context that a span's tokens come from."""
  tokens = feature.tokens[span.start : span.end + 1]
  first = feature.word_of_token[span.start]
  last = feature.word_of_token[span.end]
  text = " ".join(tokens).replace(" ##", "").replace("##", "")
  text = " ".join(text.split())
  words = " ".join(example.doc_tokens[first : last + 1])
  return final_text(text, words, config.do_lower_case)


def final_text(pred_text, orig_text, do_lower_case):
  """Returns the part of `orig_text` that `pred_text` was made from."""
  tok_text = " ".join(reference_tokenization.basic(orig_text, do_lower_case))
  start = tok_text.find(pred_text)
  if start == -1:
    return orig_text
  end = start + len(pred_text) - 1
  orig_chars, orig_positions = without_spaces(orig_text)
  tok_chars, tok_positions = without_spaces(tok_text)
  if len(orig_chars) != len(tok_chars):
    return orig_text
  number_at = {}
  for number, position in tok_positions.items():
    number_at[position] = number
  begin_number, end_number = number_at.get(start), number_at.get(end)
  if begin_number not in orig_positions or end_number not in orig_positions:
    return orig_text
  return orig_text[
    orig_positions[begin_number] : orig_positions[end_number] + 1
  ]


def without_spaces(text):
  """Returns the characters but for blanks, and {number: position in text}."""
  chars = []
  positions = {}
  for position, char in enumerate(text):
    if char == " ":
      continue
    positions[len(chars)] = position
    chars.append(char)
  return "".join(chars), positions


def softmax(scores):
  """Returns the probabilities of scores."""
  if not scores:
    return []
  largest = max(scores)
  exponentials = [math.exp(score - largest) for score in scores]
  total = sum(exponentials)
  return [x / total for x in exponentials]
