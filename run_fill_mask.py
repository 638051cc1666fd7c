"""Asks a pretrained model: words for masks, scores of texts, next sentences.

    python run_fill_mask.py --init_checkpoint=uncased_L-12_H-768_A-12 \
      --text="Paris is the [MASK] of France."

    python run_fill_mask.py --init_checkpoint=uncased_L-12_H-768_A-12 \
      --task=score --input_file=sentences.txt --output_format=jsonl

    python run_fill_mask.py --export_dir=models/pretrained/1 \
      --task=next_sentence --text="It rained. ||| The streets were wet."

A text may be two with " ||| " between them. The model is a checkpoint, with its
config and vocabulary beside it, or an export of run_pretraining.py.
"""

import contextlib
import dataclasses
import json
import sys
import textwrap

import tqdm
from absl import flags

import tokenization
from bert_keras3.console import flags as cli_flags
from bert_keras3.console import start as start_module
from bert_keras3.data import files as files_module
from bert_keras3.data import tables
from bert_keras3.serving import mask_filling

# Flags about what an export brings along.
CHECKPOINT_FLAGS = ("bert_config_file", "vocab_file", "do_lower_case")
# Texts are sorted by length among so many; scoring runs each token of them.
TEXTS_PER_CHUNK = {"fill_mask": 1024, "score": 128, "next_sentence": 1024}
SHOWN_CHARS = 60


def define_flags():
  """Defines this script's flags."""
  flags.DEFINE_enum(
    "task",
    "fill_mask",
    ["fill_mask", "score", "next_sentence"],
    "Words for each [MASK]; how likely each text is, by its pseudo-log-"
    "likelihood; or how likely the second text of a pair follows the first.",
  )
  _define_model_flags()
  flags.DEFINE_multi_string(
    "text", [], 'Text, or two with " ||| " between them; may be repeated.'
  )
  flags.DEFINE_string(
    "input_file", None, "File with a text on each line, - for stdin."
  )
  flags.DEFINE_bool("interactive", False, "Answer texts that are typed in.")
  flags.DEFINE_integer(
    "top_k", 5, "Tokens to show for each [MASK].", lower_bound=1
  )
  flags.DEFINE_integer("batch_size", 32, "Sequences per batch.", lower_bound=1)
  flags.DEFINE_enum(
    "output_format",
    "table",
    ["table", "jsonl"],
    "Tables to read, or a line of JSON for each text.",
  )
  flags.DEFINE_string("output_file", None, "Results; if none, to stdout.")
  cli_flags.define_special_tokens_flag("keep")
  cli_flags.define_answering_dry_run_flag()


def _define_model_flags():
  flags.DEFINE_string(
    "init_checkpoint",
    None,
    "The model's weights: a checkpoint prefix, or a directory with one or with "
    "a Hugging Face model.safetensors.",
  )
  flags.DEFINE_string(
    "export_dir", None, "Directory of an exported model, instead of weights."
  )
  flags.DEFINE_string(
    "bert_config_file",
    None,
    "JSON file with the architecture of the model. Found beside the weights if "
    "not given.",
  )
  cli_flags.define_vocab_flags()
  flags.DEFINE_integer(
    "max_seq_length",
    None,
    "Tokens of a text or a pair at most; as many as the model takes if not "
    "given.",
    lower_bound=5,  # [CLS] A [SEP] B [SEP]
  )


@dataclasses.dataclass(frozen=True)
class FillMaskConfig:
  """What to ask about which texts, and whom; the flags of these names."""

  task: str = "fill_mask"
  init_checkpoint: str | None = None
  export_dir: str | None = None
  bert_config_file: str | None = None
  vocab_file: str | None = None
  do_lower_case: bool = True
  special_tokens_in_text: str = "keep"
  max_seq_length: int | None = None
  text: tuple[str, ...] = ()
  input_file: str | None = None
  interactive: bool = False
  top_k: int = 5
  batch_size: int = 32
  output_format: str = "table"
  output_file: str | None = None
  dry_run: bool = False


def main():
  """Turns flags into a config and runs."""
  config = cli_flags.read(FillMaskConfig)
  given = [name for name in CHECKPOINT_FLAGS if flags.FLAGS[name].present]
  check_flags(config, given)
  texts = [] if config.interactive else read_texts(config)
  start_module.load_tensorflow()
  model = open_model(config)
  if config.interactive:
    converse(lambda line: answer_line(config, model, line), input)
    return
  if config.dry_run:
    forecast(config, model, texts)
    return
  write_results(config, answer(config, model, texts))


def forecast(config, model, texts):
  """Tells what answering will take; writes nothing."""
  from bert_keras3.training import dry_run as run_forecast

  run_forecast.forecast_answers(
    run_forecast.Findings(),
    lambda sample: join_lines(config, answer(config, model, sample)),
    texts,
    config.output_file,
  )


def check_flags(config, given):
  """Refuses flags that do not go together, and an export that is of no use.

  Args:
    config: FillMaskConfig.
    given: which of CHECKPOINT_FLAGS are on the command line.

  Raises:
    ValueError, OSError: there are some.
  """
  if bool(config.init_checkpoint) == bool(config.export_dir):
    raise ValueError("pass either --init_checkpoint or --export_dir")
  sources = (config.text, config.input_file, config.interactive)
  if sum(map(bool, sources)) != 1:
    raise ValueError("pass one of --text, --input_file and --interactive")
  if config.task == "fill_mask" and config.special_tokens_in_text == "split":
    raise ValueError(
      "--special_tokens_in_text=split makes words and brackets of [MASK], so "
      "that there is nothing to fill; leave it out"
    )
  for name in ("output_file", "dry_run"):
    if config.interactive and getattr(config, name):
      raise ValueError(f"--{name} is not for --interactive; leave it out")
  if config.export_dir and given:
    raise ValueError(f"--{given[0]} is part of an export; leave it out")
  own_files = []
  if config.export_dir:
    mask_filling.read_export(config.export_dir, config.max_seq_length)
    own_files = mask_filling.list_export_files(config.export_dir)
  check_output(config, own_files)


def check_output(config, own_files):
  """Makes sure that the results overwrite nothing that is read.

  Args:
    config: FillMaskConfig.
    own_files: paths of the model's own files, as far as they are known.

  Raises:
    ValueError, OSError: see cli_flags.check_output_files.
  """
  if config.output_file:
    inputs = [config.input_file or "", *own_files]
    files_module.check_output_files("output_file", [config.output_file], inputs)


def open_model(config):
  """The mask_filling.MaskFiller of the flags.

  Raises:
    ValueError, OSError: the files do not fit each other, or --output_file is
      one of them.
  """
  options = {
    "special_tokens_in_text": config.special_tokens_in_text,
    "max_seq_length": config.max_seq_length,
    "batch_size": config.batch_size,
  }
  if config.export_dir:
    return mask_filling.from_export(config.export_dir, **options)
  from bert_keras3.weights import companions

  files = (config.init_checkpoint, config.bert_config_file, config.vocab_file)
  check_output(config, companions.list_files(*files))
  return mask_filling.from_checkpoint(*files, config.do_lower_case, **options)


# Texts ------------------------------------------------------------------------


def read_texts(config):
  """The texts to ask about.

  Returns:
    List of (where it is from, str or tuple of two).

  Raises:
    ValueError, OSError: there are none, or one is not what the task takes.
  """
  texts = [(place, _parse(line)) for place, line in _read_lines(config)]
  if not texts:
    raise ValueError(f"--input_file={config.input_file} has no text")
  for place, text in texts:
    problem = find_problem(config, text)
    if problem:
      raise ValueError(f"{place}: {problem}")
  return texts


def _read_lines(config):
  """Pairs of a place and a line."""
  if config.text:
    for number, text in enumerate(config.text, start=1):
      yield f"--text {number}", text
    return
  name, lines = config.input_file, None
  if name == "-":
    name, lines = "stdin", (line.rstrip("\r\n") for line in sys.stdin)
  for number, line in enumerate(lines or tokenization.read_lines(name), 1):
    yield f"{name}, line {number}", line


def _parse(line):
  """A str, or a tuple of two if there are bars between them."""
  # Halves of surrogate pairs have no UTF-8.
  line = line.encode("utf-8", "replace").decode()
  first, second = tables.split_pair(line)
  return first if second is None else (first, second)


def find_problem(config, text):
  """Why a task cannot take a text, "" if it can.

  Args:
    config: FillMaskConfig.
    text: str or tuple of two.
  """
  parts = (text,) if isinstance(text, str) else text
  if not "".join(parts).strip():
    return "blank line; remove it"
  shown = textwrap.shorten(_format_text(parts), SHOWN_CHARS, placeholder="...")
  has_mask = any(mask_filling.MASK in part for part in parts)
  if config.task == "fill_mask" and not has_mask:
    return f"there is no [MASK] to fill in {shown!r}"
  is_pair = len(parts) == 2 and all(map(str.strip, parts))
  if config.task == "next_sentence" and not is_pair:
    return f'there should be two texts with " ||| " between them, not {shown!r}'
  is_kept = config.special_tokens_in_text == "keep"
  if config.task == "score" and has_mask and is_kept:
    return f"[MASK] has no likelihood, so {shown!r} cannot be scored"
  return ""


# Answers ----------------------------------------------------------------------


def answer(config, model, texts):
  """Asks the model about texts, some at a time.

  Args:
    config: FillMaskConfig.
    model: mask_filling.MaskFiller.
    texts: what `read_texts` returned.

  Yields:
    The dict of each text, in their order.

  Raises:
    ValueError: the model cannot take a text, which is named, or has no head for
      the task.
  """
  hides_bar = not config.output_file and sys.stdout.isatty()
  with tqdm.tqdm(
    total=len(texts),
    unit="text",
    leave=False,
    disable=hides_bar or not sys.stderr.isatty(),
  ) as bar:
    for start in range(0, len(texts), TEXTS_PER_CHUNK[config.task]):
      some = texts[start : start + TEXTS_PER_CHUNK[config.task]]
      try:
        results = ask(config, model, [text for _, text in some])
      except mask_filling.BadText as error:
        place, _ = some[error.index]
        raise ValueError(f"{place}: {error}") from None
      for (place, _), result in zip(some, results, strict=True):
        warn_if_cut(config, model, place, result)
        yield result
      bar.update(len(some))


def ask(config, model, texts):
  """List of what the task gives for each text."""
  if config.task == "fill_mask":
    return model.fill_mask(texts, config.top_k)
  if config.task == "score":
    return model.pseudo_log_likelihood(texts)
  return model.next_sentence(texts)


def warn_if_cut(config, model, place, result):
  """Tells the user of a text that is longer than the model's sequences."""
  if not result["tokens_left_out"]:
    return
  lost = result.get("masks", []).count([])
  masks = f", {lost} [MASK] among them" if lost else ""
  print(
    f"warning: {place}: {result['tokens_left_out']} tokens beyond "
    f"--max_seq_length={model.max_seq_length} were left out{masks}",
    file=sys.stderr,
  )


def converse(answer, read_line):
  """Reads texts and prints answers, until the input ends.

  Args:
    answer: function of a line that returns what to print.
    read_line: function of a prompt that returns a line or raises EOFError.
  """
  with contextlib.suppress(EOFError):
    while True:
      line = read_line("text: ").strip()
      if line:
        print(answer(line))
  print()


def answer_line(config, model, line):
  """What to print about a typed line; a mistake in it ends nothing."""
  text = _parse(line)
  problem = find_problem(config, text)
  if problem:
    return f"error: {problem}"
  try:
    (result,) = ask(config, model, [text])
  except ValueError as error:
    if not start_module.is_users_mistake(error):
      raise
    return f"error: {error}"
  warn_if_cut(config, model, "the text", result)
  return "\n".join(format_results(config, [result]))


# Output -----------------------------------------------------------------------


def write_results(config, results):
  """Prints results as they come, or writes them once all are there."""
  if not config.output_file:
    for line in format_results(config, results):
      print(line, flush=True)
    return
  from bert_keras3.data import files as files_module

  content = join_lines(config, results)
  files_module.write_atomically(config.output_file, content)
  print(f"results: {config.output_file}")


def join_lines(config, results):
  """The lines of an iterable of results, as one text."""
  return "".join(f"{line}\n" for line in format_results(config, results))


def format_results(config, results):
  """Yields the lines of an iterable of results."""
  if config.output_format == "jsonl":
    for result in results:
      yield json.dumps(result, ensure_ascii=False)
    return
  head, show = _TABLES[config.task]
  for number, result in enumerate(results):
    if number == 0:  # Not above an error.
      yield from head
    yield show(result)


def _format_text(parts):
  return " ||| ".join(parts)


def _format_named(result, name):
  names = (name, f"{name}_pair")
  return _format_text([result[x] for x in names if x in result])


def _show_masks(result):
  """A text, its masks' tokens in columns, and the text with the best ones."""
  lines = [_format_named(result, "text")]
  for number, tokens in enumerate(result["masks"], start=1):
    lines.append(f"  [MASK] {number}" + ("" if tokens else "  (left out)"))
    lines += [f"    {x['probability']:8.4f}  {x['token']}" for x in tokens]
  return "\n".join([*lines, f"  = {_format_named(result, 'filled')}"])


def _show_score(result):
  return (
    f"{result['log_likelihood']:10.3f}  {result['mean_log_likelihood']:9.4f}  "
    f"{result['pseudo_perplexity']:11.4g}  {len(result['tokens']):6}  "
    f"{_format_named(result, 'text')}"
  )


def _show_next_sentence(result):
  return f"{result['is_next']:11.4f}  {_format_named(result, 'text')}"


# By task: the lines above a table, and what makes a line of a result.
_TABLES = {
  "fill_mask": ([], _show_masks),
  "score": (
    ["       sum       mean   perplexity  tokens  text"],
    _show_score,
  ),
  "next_sentence": (["probability  texts"], _show_next_sentence),
}


def cli():
  """Entry point of the console script."""
  start_module.run(main, define_flags)


if __name__ == "__main__":
  cli()
