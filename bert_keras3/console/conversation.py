"""A conversation on the terminal: texts and questions in, answers out."""

import contextlib

# Characters of the text to show on both sides of an answer.
SHOWN_CONTEXT = 60
# Answers to show beside the best one.
SHOWN_OTHERS = 2


def talk(find_answers):
  """Answers questions that are typed in, until the input ends.

  Args:
    find_answers: function of (context, question) that returns the answers for
      `format_answers`.
  """

  def answer(context, question):
    return format_answers(context, find_answers(context, question))

  converse(answer, input)


def converse(answer, read_line):
  """Reads texts and questions, prints answers, until the input ends.

  Args:
    answer: function of (context, question) that returns the text to print.
    read_line: function of a prompt that returns a line or raises EOFError.
  """
  with contextlib.suppress(EOFError):
    while True:
      print("A text, then an empty line:")
      context = read_text(read_line)
      while question := read_line("question: ").strip():
        print(answer(context, question))
  print()


def answer_lines(answer, read_line):
  """Reads lines of text and prints answers, until the input ends.

  Args:
    answer: function of a line that returns the text to print.
    read_line: function of a prompt that returns a line or raises EOFError.
  """
  with contextlib.suppress(EOFError):
    while True:
      line = read_line("text: ").strip()
      if line:
        print(answer(line))
  print()


def read_text(read_line):
  """Reads lines up to an empty one; skips empty lines before them."""
  lines = []
  while not lines or lines[-1]:
    line = read_line("").rstrip()
    if line or lines:
      lines.append(line)
  return "\n".join(lines[:-1])


def format_answers(context, answers):
  """Formats answers, the best first, which is shown within its context.

  Args:
    context: str.
    answers: list of (text, probability, first character, the character after
      the last); the text is "" if there is no answer.
  """
  lines = []
  for text, probability, start, end in answers[: 1 + SHOWN_OTHERS]:
    line = f"  {text or 'no answer'} ({probability:.1%})"
    if text and start is not None:
      line += f", characters {start} to {end}"
    lines.append(line)
  text, _, start, end = answers[0]
  if text:
    before = context[max(0, start - SHOWN_CONTEXT) : start]
    after = context[end : end + SHOWN_CONTEXT]
    shown = f"{before}[{context[start:end]}]{after}"
    lines.insert(1, f"    {' '.join(shown.split())}")
  return "\n".join(lines)
