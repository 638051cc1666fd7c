"""google-research/bert's SQuAD features, made as plainly as can be.

What squad_data.py must equal: character by character, window by window, tokens
as strings, every span tried. tests/squad_data_test.py checks it against
upstream's own output. Examples and features are dicts.
"""

SPACES = " \t\r\n\u202f"


def read_examples(data, is_training, version_2_with_negative):
  """Examples of a parsed file; those whose answer is lost are left out."""
  examples = []
  for article in data["data"]:
    for paragraph in article["paragraphs"]:
      words, word_of_char = split(paragraph["context"])
      for question in paragraph["qas"]:
        example = {
          "qas_id": question["id"],
          "question_text": question["question"],
          "doc_tokens": words,
          "orig_answer_text": None,
          "start_position": None,
          "end_position": None,
          "is_impossible": False,
        }
        if is_training:
          if version_2_with_negative:
            example["is_impossible"] = question["is_impossible"]
          answer = find_answer(example, question, word_of_char)
          if answer is None:
            continue
          example.update(answer)
        examples.append(example)
  return examples


def split(context):
  """The words, and for each character the last word begun until there."""
  words, word_of_char = [], []
  in_word = False
  for char in context:
    if char in SPACES:
      in_word = False
    elif in_word:
      words[-1] += char
    else:
      words.append(char)
      in_word = True
    word_of_char.append(len(words) - 1)
  return words, word_of_char


def find_answer(example, question, word_of_char):
  if example["is_impossible"]:
    return {"orig_answer_text": "", "start_position": -1, "end_position": -1}
  (answer,) = question["answers"]
  text, start = answer["text"], answer["answer_start"]
  first, last = word_of_char[start], word_of_char[start + len(text) - 1]
  there = " ".join(example["doc_tokens"][first : last + 1])
  if " ".join(text.split()) not in there:
    return None
  return {
    "orig_answer_text": text,
    "start_position": first,
    "end_position": last,
  }


def make_features(examples, tokenizer, settings, is_training):
  """Features of all examples; `settings` are upstream's three flags."""
  features = []
  for number, example in enumerate(examples):
    for feature in features_of(example, tokenizer, settings, is_training):
      feature["example_index"] = number
      feature["unique_id"] = 1000000000 + len(features)
      features.append(feature)
  return features


def features_of(example, tokenizer, settings, is_training):
  query = tokenizer.tokenize(example["question_text"])
  query = query[: settings["max_query_length"]]
  pieces, word_of_piece, first_piece = [], [], []
  for number, word in enumerate(example["doc_tokens"]):
    first_piece.append(len(pieces))
    for piece in tokenizer.tokenize(word):
      pieces.append(piece)
      word_of_piece.append(number)
  answer = None
  if is_training and not example["is_impossible"]:
    answer = answer_pieces(example, pieces, first_piece, tokenizer)
  windows = lay_windows(
    len(pieces),
    settings["max_seq_length"] - len(query) - 3,
    settings["doc_stride"],
  )
  for number, (start, stop) in enumerate(windows):
    tokens = ["[CLS]", *query, "[SEP]", *pieces[start:stop], "[SEP]"]
    first = len(query) + 2
    position = (None, None)
    if is_training:
      position = (0, 0)
      if answer and answer[0] >= start and answer[1] < stop:
        position = [x - start + first for x in answer]
    yield {
      "doc_span_index": number,
      "tokens": tokens,
      "input_ids": tokenizer.convert_tokens_to_ids(tokens),
      "first_doc_token": first,
      "token_to_orig": word_of_piece[start:stop],
      "token_is_max_context": "".join(
        str(int(most_context(windows, x) == number)) for x in range(start, stop)
      ),
      "start_position": position[0],
      "end_position": position[1],
      "is_impossible": example["is_impossible"],
      "padded_length": settings["max_seq_length"],
    }


def answer_pieces(example, pieces, first_piece, tokenizer):
  """First and last piece: the longest span that is the answer's text."""
  first = first_piece[example["start_position"]]
  last = len(pieces) - 1
  if example["end_position"] + 1 < len(example["doc_tokens"]):
    last = first_piece[example["end_position"] + 1] - 1
  text = " ".join(tokenizer.tokenize(example["orig_answer_text"]))
  for start in range(first, last + 1):
    for end in range(last, start - 1, -1):
      if " ".join(pieces[start : end + 1]) == text:
        return start, end
  return first, last


def lay_windows(num_pieces, room, doc_stride):
  windows = []
  start = 0
  while start < num_pieces:
    length = min(room, num_pieces - start)
    windows.append((start, start + length))
    if start + length == num_pieces:
      break
    start += min(length, doc_stride)
  return windows


def most_context(windows, position):
  scores = [
    min(position - start, stop - 1 - position) + 0.01 * (stop - start)
    if start <= position < stop
    else -1
    for start, stop in windows
  ]
  return scores.index(max(scores))
