"""google-research/bert's pretraining data, made as plainly as can be.

What create_pretraining_data.py must equal: every draw is a call of a
`random.Random`, in upstream's order; tokens are strings; nothing is shared or
clever. tests/create_pretraining_data_test.py checks it against upstream's own
output. Options are upstream's flags, in a dict.
"""

import collections
import hashlib
import json
import random

DEFAULTS = {
  "do_whole_word_mask": False,
  "max_seq_length": 128,
  "max_predictions_per_seq": 20,
  "random_seed": 12345,
  "dupe_factor": 10,
  "masked_lm_prob": 0.15,
  "short_seq_prob": 0.1,
}

Instance = collections.namedtuple(
  "Instance",
  "tokens segment_ids masked_lm_positions masked_lm_labels is_random_next",
)


def read_documents(input_files, tokenizer):
  """Documents, each a list of sentences, each a non-empty list of tokens."""
  documents = [[]]
  for path in input_files:
    for line in _lines(path):
      line = line.strip()
      if not line:
        documents.append([])
      tokens = tokenizer.tokenize(line)
      if tokens:
        documents[-1].append(tokens)
  return [document for document in documents if document]


def _lines(path):
  with open(path, "rb") as file:
    content = file.read().replace(b"\r", b"").decode("utf-8")
  lines = content.split("\n")
  # What follows the last "\n" is a line only if there is something.
  return lines if lines[-1] else lines[:-1]


def create_instances(documents, vocab_words, options):
  """All instances, in the order in which they are written."""
  rng = random.Random(options["random_seed"])
  documents = list(documents)
  rng.shuffle(documents)
  instances = []
  for _ in range(options["dupe_factor"]):
    for index in range(len(documents)):
      instances += _document_instances(
        documents, index, vocab_words, options, rng
      )
  rng.shuffle(instances)
  return instances


def _document_instances(documents, index, vocab_words, options, rng):
  room = options["max_seq_length"] - 3
  target = room
  if rng.random() < options["short_seq_prob"]:
    target = rng.randint(2, room)
  document = documents[index]
  instances = []
  first = 0
  while first < len(document):
    chunk = _sentences_from(document, first, target)
    split = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
    tokens_a = _joined(chunk[:split])
    is_random_next = len(chunk) == 1 or rng.random() < 0.5
    if is_random_next:
      other = _other_document(documents, index, rng)
      start = rng.randint(0, len(other) - 1)
      wanted = target - len(tokens_a)
      tokens_b = _joined(_sentences_from(other, start, wanted))
      first += split
    else:
      tokens_b = _joined(chunk[split:])
      first += len(chunk)
    _truncate(tokens_a, tokens_b, room, rng)
    instances.append(
      _instance(tokens_a, tokens_b, is_random_next, vocab_words, options, rng)
    )
  return instances


def _sentences_from(document, first, target):
  chunk = []
  length = 0
  for index in range(first, len(document)):
    chunk.append(document[index])
    length += len(document[index])
    if length >= target:
      break
  return chunk


def _joined(sentences):
  tokens = []
  for sentence in sentences:
    tokens.extend(sentence)
  return tokens


def _other_document(documents, index, rng):
  for _ in range(10):
    other = rng.randint(0, len(documents) - 1)
    if other != index:
      break
  return documents[other]


def _truncate(tokens_a, tokens_b, room, rng):
  while len(tokens_a) + len(tokens_b) > room:
    longer = tokens_a if len(tokens_a) > len(tokens_b) else tokens_b
    longer.pop(0 if rng.random() < 0.5 else -1)


def _instance(tokens_a, tokens_b, is_random_next, vocab_words, options, rng):
  tokens, segment_ids = _with_special_tokens(tokens_a, tokens_b)
  masked, labels = _mask(tokens, vocab_words, options, rng)
  return Instance(
    masked,
    segment_ids,
    [position for position, _ in labels],
    [token for _, token in labels],
    is_random_next,
  )


def _with_special_tokens(tokens_a, tokens_b):
  tokens = ["[CLS]"]
  segment_ids = [0]
  for segment, part in enumerate((tokens_a, tokens_b)):
    for token in part:
      tokens.append(token)
      segment_ids.append(segment)
    tokens.append("[SEP]")
    segment_ids.append(segment)
  return tokens, segment_ids


def _mask(tokens, vocab_words, options, rng):
  """Tokens with replacements, and (position, original) in order."""
  wanted = int(round(len(tokens) * options["masked_lm_prob"]))
  wanted = min(options["max_predictions_per_seq"], max(1, wanted))
  candidates = _mask_candidates(tokens, options["do_whole_word_mask"])
  rng.shuffle(candidates)
  masked = list(tokens)
  labels = []
  for word in candidates:
    if len(labels) >= wanted:
      break
    if len(labels) + len(word) > wanted:
      continue
    for position in word:
      labels.append((position, tokens[position]))
      masked[position] = _replacement(tokens[position], vocab_words, rng)
  return masked, sorted(labels)


def _mask_candidates(tokens, whole_words):
  candidates = []
  for position, token in enumerate(tokens):
    if token in ("[CLS]", "[SEP]"):
      continue
    if whole_words and candidates and token.startswith("##"):
      candidates[-1].append(position)
    else:
      candidates.append([position])
  return candidates


def _replacement(token, vocab_words, rng):
  if rng.random() < 0.8:
    return "[MASK]"
  if rng.random() < 0.5:
    return token
  return vocab_words[rng.randint(0, len(vocab_words) - 1)]


def features(instance, vocab, options):
  """One record's features: dict from name to a list of int or float."""
  length = options["max_seq_length"]
  slots = options["max_predictions_per_seq"]
  ids = _ids(instance.tokens, vocab)
  label_ids = _ids(instance.masked_lm_labels, vocab)
  return {
    "input_ids": _padded(ids, length, 0),
    "input_mask": _padded([1] * len(ids), length, 0),
    "segment_ids": _padded(instance.segment_ids, length, 0),
    "masked_lm_positions": _padded(instance.masked_lm_positions, slots, 0),
    "masked_lm_ids": _padded(label_ids, slots, 0),
    "masked_lm_weights": _padded([1.0] * len(label_ids), slots, 0.0),
    "next_sentence_labels": [int(instance.is_random_next)],
  }


def _ids(tokens, vocab):
  ids = []
  for token in tokens:
    ids.append(vocab[token])
  return ids


def _padded(values, length, padding):
  values = list(values)
  while len(values) < length:
    values.append(padding)
  return values


def create_features(input_files, tokenizer, options):
  """The features of every record, in order, from text files."""
  documents = read_documents(input_files, tokenizer)
  instances = create_instances(documents, list(tokenizer.vocab), options)
  return [features(x, tokenizer.vocab, options) for x in instances]


def sha16(record):
  """16 hex digits that stand for a record's features."""
  text = json.dumps(record, sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()[:16]
