"""Flags: declared once, as the fields of a config, with upstream's names."""

import dataclasses
import importlib
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from bert_keras3.console import flag_docs
from bert_keras3.console import flags as console_flags
from bert_keras3.data import fields
from bert_keras3.training import configs

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPTS = flag_docs.find_scripts(ROOT)

TPU_FLAGS = {"use_tpu": False, "master": None, "num_tpu_cores": 8}
ALL_TPU_FLAGS = {
  **TPU_FLAGS,
  "tpu_name": None,
  "tpu_zone": None,
  "gcp_project": None,
}
RUN_FLAGS = {
  "bert_config_file": None,
  "output_dir": None,
  "init_checkpoint": None,
  "do_train": False,
  "train_batch_size": 32,
  "learning_rate": 5e-5,
  "save_checkpoints_steps": 1000,
  "iterations_per_loop": 1000,
  **ALL_TPU_FLAGS,
}
FINE_TUNING_FLAGS = {
  **RUN_FLAGS,
  "vocab_file": None,
  "do_lower_case": True,
  "do_predict": False,
  "predict_batch_size": 8,
  "num_train_epochs": 3.0,
  "warmup_proportion": 0.1,
}
# Names and defaults of google-research/bert's flags.
UPSTREAM = {
  "create_pretraining_data": {
    "input_file": None,
    "output_file": None,
    "vocab_file": None,
    "do_lower_case": True,
    "do_whole_word_mask": False,
    "max_seq_length": 128,
    "max_predictions_per_seq": 20,
    "random_seed": 12345,
    "dupe_factor": 10,
    "masked_lm_prob": 0.15,
    "short_seq_prob": 0.1,
  },
  "run_pretraining": {
    **RUN_FLAGS,
    "input_file": None,
    "max_seq_length": 128,
    "max_predictions_per_seq": 20,
    "do_eval": False,
    "eval_batch_size": 8,
    "num_train_steps": 100000,
    "num_warmup_steps": 10000,
    "max_eval_steps": 100,
  },
  "run_classifier": {
    **FINE_TUNING_FLAGS,
    "data_dir": None,
    "task_name": None,
    "max_seq_length": 128,
    "do_eval": False,
    "eval_batch_size": 8,
  },
  "run_squad": {
    **FINE_TUNING_FLAGS,
    "train_file": None,
    "predict_file": None,
    "max_seq_length": 384,
    "doc_stride": 128,
    "max_query_length": 64,
    "n_best_size": 20,
    "max_answer_length": 30,
    "verbose_logging": False,
    "version_2_with_negative": False,
    # Upstream's is 0.0; here that is what no threshold at all comes to.
    "null_score_diff_threshold": None,
  },
  "extract_features": {
    "input_file": None,
    "output_file": None,
    "layers": "-1,-2,-3,-4",
    "bert_config_file": None,
    "max_seq_length": 128,
    "init_checkpoint": None,
    "vocab_file": None,
    "do_lower_case": True,
    "batch_size": 32,
    "use_one_hot_embeddings": False,
    **TPU_FLAGS,
  },
}


@pytest.fixture
def parse():
  """Parses a command line by the flags of a config; forgets them again."""
  before = list(flags.FLAGS)

  def parse_arguments(config_class, *arguments):
    console_flags.define(config_class)
    flags.FLAGS(["program", *arguments])
    return console_flags.read(config_class)

  yield parse_arguments
  flags.FLAGS.unparse_flags()
  for name in [name for name in flags.FLAGS if name not in before]:
    delattr(flags.FLAGS, name)


@pytest.mark.parametrize("script", UPSTREAM)
def test_upstreams_flags_have_upstreams_defaults(script):
  config_class = flag_docs.find_config(importlib.import_module(script))
  declared = {x.name: x for x, _ in fields.flags_of(config_class)}
  defaults = {name: declared[name].default for name in UPSTREAM[script]}
  assert defaults == UPSTREAM[script]
  # `0 == 0.0`, but a command line tells an integer from a float.
  types = {name: type(default) for name, default in defaults.items()}
  assert types == {x: type(y) for x, y in UPSTREAM[script].items()}


@pytest.mark.parametrize("script", [x.__name__ for x in SCRIPTS])
def test_every_field_is_a_flag_of_its_type(script, parse):
  config_class = flag_docs.find_config(importlib.import_module(script))
  declared = fields.flags_of(config_class)
  required = [f"--{x.name}=a" for x, flag in declared if flag.is_required]
  if "--output_format=a" in required:
    required[required.index("--output_format=a")] = "--output_format=tf1"
  config = parse(config_class, *required)
  names = {argument[2:].split("=")[0] for argument in required}
  assert config.given == names
  for field, _ in declared:
    if field.name not in names:
      assert getattr(config, field.name) == field.default, field.name


@dataclasses.dataclass(frozen=True)
class Config(fields.Config):
  count: int = fields.flag(1, "How many.", lower_bound=1, decides_result=True)
  rate: float | None = fields.flag(None, "How fast.")
  names: tuple[str, ...] = fields.flag((), "Which.")
  words: tuple[str, ...] = fields.flag((), "Words.", is_repeated=True)
  is_quiet: bool = fields.flag(False, "Whether.")
  kind: str = fields.flag("a", "What.", choices=("a", "b"))


def test_a_command_line_becomes_a_config(parse):
  assert parse(
    Config,
    "--count=2",
    "--rate=0.5",
    "--names=x,y",
    "--words=p,q",
    "--words=r",
    "--is_quiet",
    "--kind=b",
  ) == Config(
    count=2,
    rate=0.5,
    names=("x", "y"),
    words=("p,q", "r"),
    is_quiet=True,
    kind="b",
    given=frozenset(["count", "rate", "names", "words", "is_quiet", "kind"]),
  )


@pytest.mark.parametrize("argument", ["--count=0", "--kind=c", "--rate=fast"])
def test_a_value_that_is_not_declared_is_refused(parse, argument):
  with pytest.raises(flags.IllegalFlagValueError):
    parse(Config, argument)


def test_settings_are_the_flags_that_decide_the_result():
  assert fields.settings(Config(count=3, rate=1.0)) == {"count": 3}


def test_a_variant_changes_what_it_says_and_nothing_else():
  @dataclasses.dataclass(frozen=True)
  class Variant(Config):
    count: int = fields.variant(Config, "count", default=5, lower_bound=3)

  declared = {x.name: flag for x, flag in fields.flags_of(Variant)}
  assert Variant().count == 5
  assert declared["count"] == fields.Flag(
    "How many.", lower_bound=3, decides_result=True
  )


@pytest.mark.parametrize(
  ("arguments", "strategy", "tpu_address"),
  [
    (["--use_tpu", "--tpu_name=a"], "tpu", "a"),
    (["--tpu_name=a", "--master=grpc://b"], "auto", "grpc://b"),
  ],
)
def test_tpu_flags_become_a_device_config(
  parse, arguments, strategy, tpu_address
):
  config = parse(configs.DeviceConfig, *arguments)
  assert config.strategy_name == strategy
  assert config.tpu_address == tpu_address
  assert config.num_tpu_cores == 8


def test_docs_list_the_flags_as_they_are():
  """`make docs` writes the file again."""
  text = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
  assert text == flag_docs.describe(SCRIPTS)


def test_help_costs_no_tensorflow():
  program = (
    "import sys, run_classifier\n"
    "sys.argv = ['run_classifier', '--helpfull']\n"
    "try:\n  run_classifier.cli()\n"
    "except SystemExit:\n  assert 'tensorflow' not in sys.modules\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
  )
  assert "--layerwise_lr_decay" in result.stdout
  assert result.stderr == ""
