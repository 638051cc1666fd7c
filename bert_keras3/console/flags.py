"""Flags shared by the scripts, and how a script starts.

A script declares its flags in `define_flags()` and does its work in `main`:

    def cli():
      flags.run(main, define_flags)

so that importing a script defines no flag, and two scripts can live in one
process. Nothing here imports TensorFlow: `--help` and a wrong flag answer at
once.
"""

import dataclasses

from absl import flags

FLAGS = flags.FLAGS

# Flags defined by this module's functions are listed under the script that
# called them, not under "cli_flags", in --help.
flags.disclaim_key_flags()

EXPORT_FORMATS = ("savedmodel", "litert")

# Files named by flags ---------------------------------------------------------


# Flag groups ------------------------------------------------------------------


def define_model_flags(required):
  """--bert_config_file, --init_checkpoint, --output_dir.

  Args:
    required: names of those that the script cannot do without.
  """
  flags.DEFINE_string(
    "bert_config_file",
    None,
    "JSON file with the architecture of the model. Fine-tuning finds it beside "
    "the weights if it is not given.",
    required="bert_config_file" in required,
  )
  flags.DEFINE_string(
    "init_checkpoint",
    None,
    "Weights to start from: a checkpoint prefix, or a directory with one or "
    "with a Hugging Face model.safetensors.",
  )
  flags.DEFINE_string(
    "output_dir",
    None,
    "Directory for checkpoints, logs and results; made if missing.",
    required="output_dir" in required,
  )


def define_training_flags():
  """What every script that trains can be told."""
  _define_optimization_flags()
  _define_run_flags()


def _define_optimization_flags():
  flags.DEFINE_integer(
    "train_batch_size",
    32,
    "Examples per update, over all devices and micro-batches.",
    lower_bound=1,
  )
  flags.DEFINE_float(
    "learning_rate", 5e-5, "Highest learning rate.", lower_bound=0.0
  )
  flags.DEFINE_integer(
    "gradient_accumulation_steps",
    1,
    "Micro-batches a batch is computed in, to fit into memory. The result is "
    "that of the whole batch.",
    lower_bound=1,
  )
  flags.DEFINE_enum(
    "optimizer",
    "adamw",
    ["adamw", "lamb"],
    "BERT's Adam with weight decay, or LAMB for large batches.",
  )
  flags.DEFINE_enum(
    "schedule",
    "linear",
    ["linear", "polynomial", "cosine", "constant"],
    "How the learning rate falls after the warmup.",
  )
  flags.DEFINE_float(
    "schedule_power",
    0.5,  # of the LAMB recipes published with BERT; 1 would be linear
    "Exponent of --schedule=polynomial.",
    lower_bound=0.0,
  )


def _define_run_flags():
  flags.DEFINE_integer(
    "seed",
    0,
    "Fixes initial weights, the order of the examples and dropout.",
    lower_bound=0,
    # It shares a 64-bit word with the replica's number.
    upper_bound=2**32 - 1,
  )
  flags.DEFINE_integer(
    "iterations_per_loop",
    1000,
    "Steps TensorFlow takes between returns to Python, at most.",
    lower_bound=1,
  )
  flags.DEFINE_integer(
    "log_every_steps", 100, "Steps between lines of the log.", lower_bound=1
  )
  flags.DEFINE_bool(
    "overwrite_output_dir",
    False,
    "Delete the run that --output_dir holds and start anew.",
  )
  flags.DEFINE_bool(
    "dry_run",
    False,
    "Check data, disk and memory, measure a few steps, say whether the run is "
    "ready; write nothing.",
  )
  _define_checkpoint_flags()


def _define_checkpoint_flags():
  flags.DEFINE_integer(
    "save_checkpoints_steps", 1000, "Steps between checkpoints.", lower_bound=1
  )
  flags.DEFINE_float(
    "save_checkpoints_secs",
    0.0,
    "Seconds between further checkpoints; 0 for none.",
    lower_bound=0.0,
  )
  flags.DEFINE_enum(
    "on_nan",
    "stop",
    ["stop", "skip", "rollback"],
    "A loss or gradient that is no number ends the run; or its step is left "
    "out; or the run goes back to its last checkpoint and on behind the batch.",
  )
  flags.DEFINE_integer(
    "keep_checkpoint_max",
    5,
    "Newest checkpoints to keep; 0 keeps all.",
    lower_bound=0,
  )


def define_answering_dry_run_flag():
  """--dry_run of scripts that answer texts."""
  flags.DEFINE_bool(
    "dry_run",
    False,
    "Check model, texts and disk, answer a few, say how long all will take; "
    "write nothing.",
  )


def define_vocab_flags():
  """--vocab_file, --do_lower_case."""
  flags.DEFINE_string(
    "vocab_file",
    None,
    "Vocabulary of the model. Found beside the weights if not given.",
  )
  flags.DEFINE_bool(
    "do_lower_case", True, "Lower-case and strip accents: for uncased models."
  )


def define_special_tokens_flag(default="split"):
  """--special_tokens_in_text.

  Args:
    default: "split", as upstream does, or "keep".
  """
  flags.DEFINE_enum(
    "special_tokens_in_text",
    default,
    ["split", "keep"],
    "What [MASK], [SEP], [unused1] and other entries of the vocabulary in "
    "square brackets are in a text: words and brackets, or one token each.",
  )


def define_fine_tuning_flags():
  """What every script that fine-tunes can be told as well."""
  define_vocab_flags()
  flags.DEFINE_float(
    "num_train_epochs", 3.0, "Passes over the training data.", lower_bound=0.0
  )
  flags.DEFINE_float(
    "warmup_proportion",
    0.1,
    "Share of the steps during which the learning rate rises.",
    lower_bound=0.0,
    upper_bound=1.0,
  )
  flags.DEFINE_bool(
    "adam_bias_correction",
    False,
    "Correct the bias of Adam's moments; steadies training on small data.",
  )
  flags.DEFINE_float(
    "layerwise_lr_decay",
    1.0,
    "Each layer's learning rate, as a share of the one above it.",
    lower_bound=0.0,
  )
  flags.DEFINE_string(
    "freeze_layers",
    "",
    "What not to train: embeddings, pooler, layers such as 0-7, or several of "
    "them with commas.",
  )
  flags.DEFINE_integer(
    "eval_steps",
    0,
    "Steps between evaluations during training, which keep the best weights; "
    "0 evaluates at the end only.",
    lower_bound=0,
  )
  flags.DEFINE_integer(
    "early_stopping_patience",
    0,
    "Stop after so many evaluations without a better one, each --eval_steps or "
    "an epoch apart; 0 trains to the end.",
    lower_bound=0,
  )
  flags.DEFINE_bool(
    "pad_to_max_length",
    False,
    "Pad every sequence to --max_seq_length instead of to a few lengths.",
  )


def define_export_flags():
  """What every script that trains can be told about its model's export."""
  flags.DEFINE_bool(
    "do_export", False, "Write the model as a SavedModel that takes text."
  )
  flags.DEFINE_string(
    "export_dir",
    None,
    "Directory for the SavedModel. TensorFlow Serving wants MODEL/VERSION.",
  )
  flags.DEFINE_list(
    "export_format",
    ["savedmodel"],
    "savedmodel, or savedmodel,litert to add LiteRT files that take ids, in "
    "float32 and with int8 weights, and to measure what they lose.",
  )


def check_export():
  """Refuses --do_export without a place to export to, and unknown formats.

  Raises:
    ValueError: there is none, or there are some.
  """
  if FLAGS.do_export and not FLAGS.export_dir:
    raise ValueError("--do_export needs --export_dir")
  for name in FLAGS.export_format:
    if name not in EXPORT_FORMATS:
      raise ValueError(
        f"--export_format: there is no {name!r}; name one or both of "
        f"{', '.join(EXPORT_FORMATS)}"
      )


def define_device_flags():
  """Where to run, and in which arithmetic."""
  flags.DEFINE_enum(
    "distribution_strategy",
    "auto",
    ["auto", "one_device", "mirrored", "multi_worker", "tpu"],
    "auto takes all local GPUs, else one device; multi_worker reads the "
    "cluster from the environment variable TF_CONFIG.",
  )
  flags.DEFINE_integer(
    "num_devices",
    None,
    "Local devices to use. Without GPUs, logical CPUs to make.",
    lower_bound=1,
  )
  flags.DEFINE_float(
    "worker_timeout",
    600.0,
    "Seconds after which a worker of several ends that waits for the others "
    "in vain: longer than a step, a checkpoint and the reading of data take.",
    lower_bound=1.0,
  )
  flags.DEFINE_enum(
    "mixed_precision",
    "float32",
    ["float32", "bfloat16", "float16"],
    "Arithmetic of the layers; weights, statistics and losses stay float32.",
  )
  flags.DEFINE_enum(
    "xla",
    "auto",
    ["auto", "true", "false"],
    "Compile the step with XLA; auto does on GPUs.",
  )
  flags.DEFINE_bool(
    "deterministic",
    False,
    "Use only deterministic kernels: same seed, same weights, bit by bit.",
  )
  flags.DEFINE_bool("use_tpu", False, "Same as --distribution_strategy=tpu.")
  flags.DEFINE_string("tpu_name", None, "Name or grpc:// address of the TPU.")
  flags.DEFINE_string("tpu_zone", None, "Cloud zone of the TPU.")
  flags.DEFINE_string("gcp_project", None, "Cloud project of the TPU.")
  flags.DEFINE_string(
    "master", None, "Address of the TPU's master; goes before --tpu_name."
  )
  flags.DEFINE_integer(
    "num_tpu_cores", 8, "Cores of the TPU to use, at most.", lower_bound=1
  )


def device_config():
  """The device flags as a devices.DeviceConfig."""
  from bert_keras3.training import devices

  strategy = "tpu" if FLAGS.use_tpu else FLAGS.distribution_strategy
  return devices.DeviceConfig(
    distribution_strategy=strategy,
    num_devices=FLAGS.num_devices,
    mixed_precision=FLAGS.mixed_precision,
    xla=FLAGS.xla,
    deterministic=FLAGS.deterministic,
    tpu_name=FLAGS.master or FLAGS.tpu_name,
    tpu_zone=FLAGS.tpu_zone,
    gcp_project=FLAGS.gcp_project,
    num_tpu_cores=FLAGS.num_tpu_cores,
    worker_timeout=FLAGS.worker_timeout,
  )


def training_config(num_train_steps, num_warmup_steps, names=()):
  """The training flags as a loop.TrainingConfig.

  Args:
    num_train_steps: int.
    num_warmup_steps: int.
    names: further fields of it that the script has flags for.
  """
  import optimization
  from bert_keras3.training import loop

  return loop.TrainingConfig(
    output_dir=FLAGS.output_dir,
    schedule=optimization.LearningRateSchedule(
      init_lr=FLAGS.learning_rate,
      num_train_steps=num_train_steps,
      num_warmup_steps=num_warmup_steps,
      decay=FLAGS.schedule,
      power=FLAGS.schedule_power,
    ),
    train_batch_size=FLAGS.train_batch_size,
    optimizer=FLAGS.optimizer,
    gradient_accumulation_steps=FLAGS.gradient_accumulation_steps,
    seed=FLAGS.seed,
    iterations_per_loop=FLAGS.iterations_per_loop,
    save_checkpoints_steps=FLAGS.save_checkpoints_steps,
    keep_checkpoint_max=FLAGS.keep_checkpoint_max,
    log_every_steps=FLAGS.log_every_steps,
    save_checkpoints_secs=FLAGS.save_checkpoints_secs,
    on_nan=FLAGS.on_nan,
    **flag_values(names),
  )


def fine_tuning_config():
  """The same for fine-tuning, its numbers of steps 0.

  How many steps there are is known once the examples are counted.
  """
  return training_config(
    num_train_steps=0,
    num_warmup_steps=0,
    names=("adam_bias_correction", "layerwise_lr_decay", "eval_steps"),
  )


# Flags to configs -------------------------------------------------------------

# Flags of the groups above that change the weights a run ends with. The number
# and kind of devices is not among them: a run may move.
TRAINING_SETTINGS = (
  "bert_config_file",
  "init_checkpoint",
  "train_batch_size",
  "learning_rate",
  "gradient_accumulation_steps",
  "optimizer",
  "schedule",
  "schedule_power",
  "seed",
  "mixed_precision",
)


# And those of define_fine_tuning_flags.
FINE_TUNING_SETTINGS = (
  "do_lower_case",
  "num_train_epochs",
  "warmup_proportion",
  "adam_bias_correction",
  "layerwise_lr_decay",
  "freeze_layers",
  "eval_steps",
  "early_stopping_patience",
  "pad_to_max_length",
)


def fine_tuning_settings(names):
  """Values of the flags that decide what fine-tuning ends with.

  Args:
    names: those of the script's own that do.
  """
  return flag_values([*TRAINING_SETTINGS, *FINE_TUNING_SETTINGS, *names])


def flag_values(names):
  """Dict from flag name to its value on this command line."""
  return {name: FLAGS[name].value for name in names}


def read(config_class):
  """Builds a dataclass from the flags that its fields are named after."""
  names = [field.name for field in dataclasses.fields(config_class)]
  return config_class(**flag_values(names))
