"""Flags of scripts that train, in groups that their configs inherit.

Importing this costs no TensorFlow: `--help` and a wrong flag answer at once.
"""

import dataclasses

from bert_keras3.data import fields

EXPORT_FORMATS = ("savedmodel", "litert")


@dataclasses.dataclass(frozen=True)
class WeightsConfig(fields.Config):
  """The pretrained model and the files beside it.

  Attributes:
    max_seq_length: tokens of a sequence, None for as many as the model takes.
    special_tokens_in_text: see SpecialTokensConfig.
    do_train: whether a new model, without weights, is allowed.
  """

  bert_config_file: str | None = fields.flag(
    None,
    "JSON file with the architecture of the model. Found beside the weights if "
    "not given.",
  )
  init_checkpoint: str | None = fields.flag(
    None,
    "The model's weights: a checkpoint prefix, or a directory with one or with "
    "a Hugging Face model.safetensors.",
  )
  vocab_file: str | None = fields.flag(
    None, "Vocabulary of the model. Found beside the weights if not given."
  )
  do_lower_case: bool = fields.flag(
    True, "Lower-case and strip accents: for uncased models."
  )
  max_seq_length: int | None = None
  special_tokens_in_text: str = "split"
  do_train: bool = False


@dataclasses.dataclass(frozen=True)
class SpecialTokensConfig(WeightsConfig):
  """A WeightsConfig with a flag for how "[MASK]" in a text is read."""

  special_tokens_in_text: str = fields.flag(
    "split",
    "What [MASK], [SEP], [unused1] and other entries of the vocabulary in "
    "square brackets are in a text: words and brackets, or one token each.",
    choices=("split", "keep"),
  )


@dataclasses.dataclass(frozen=True)
class DeviceConfig(fields.Config):
  """The devices to run on, and their arithmetic."""

  distribution_strategy: str = fields.flag(
    "auto",
    "auto takes all local GPUs, else one device; multi_worker reads the "
    "cluster from the environment variable TF_CONFIG.",
    choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
  )
  num_devices: int | None = fields.flag(
    None,
    "Local devices to use. Without GPUs, logical CPUs to make.",
    lower_bound=1,
  )
  worker_timeout: float = fields.flag(
    600.0,
    "Seconds after which a worker of several ends that waits for the others "
    "in vain: longer than a step, a checkpoint and the reading of data take.",
    lower_bound=1.0,
  )
  mixed_precision: str = fields.flag(
    "float32",
    "Arithmetic of the layers; weights, statistics and losses stay float32.",
    choices=("float32", "bfloat16", "float16"),
    decides_result=True,
  )
  xla: str = fields.flag(
    "auto",
    "Compile the step with XLA; auto does on GPUs.",
    choices=("auto", "true", "false"),
  )
  deterministic: bool = fields.flag(
    False,
    "Use only deterministic kernels: same seed, same weights, bit by bit.",
  )
  use_tpu: bool = fields.flag(False, "Same as --distribution_strategy=tpu.")
  tpu_name: str | None = fields.flag(
    None, "Name or grpc:// address of the TPU."
  )
  tpu_zone: str | None = fields.flag(None, "Cloud zone of the TPU.")
  gcp_project: str | None = fields.flag(None, "Cloud project of the TPU.")
  master: str | None = fields.flag(
    None, "Address of the TPU's master; goes before --tpu_name."
  )
  num_tpu_cores: int = fields.flag(
    8, "Cores of the TPU to use, at most.", lower_bound=1
  )

  @property
  def strategy_name(self):
    """Returns the strategy's name; --use_tpu beats --distribution_strategy."""
    return "tpu" if self.use_tpu else self.distribution_strategy

  @property
  def tpu_address(self):
    """Returns the name or address of the TPU, --master before --tpu_name."""
    return self.master or self.tpu_name

  @property
  def policy(self):
    """Returns the name of the Keras dtype policy."""
    is_mixed = self.mixed_precision != "float32"
    return f"mixed_{self.mixed_precision}" if is_mixed else "float32"


@dataclasses.dataclass(frozen=True)
class TrainingConfig(fields.Config):
  """Flags of training, whatever the task.

  Attributes:
    num_train_steps: updates of the whole run; fine-tuning counts them once it
      knows its examples.
    num_warmup_steps: updates during which the learning rate rises.
    freeze_layers, adam_bias_correction, layerwise_lr_decay, eval_steps: flags
      of fine-tuning.
    clip_norm: largest norm of the gradients, as upstream's.
  """

  output_dir: str | None = fields.flag(
    None, "Directory for checkpoints, logs and results; made if missing."
  )
  train_batch_size: int = fields.flag(
    32,
    "Examples per update, over all devices and micro-batches.",
    lower_bound=1,
    decides_result=True,
  )
  learning_rate: float = fields.flag(
    5e-5, "Highest learning rate.", lower_bound=0.0, decides_result=True
  )
  gradient_accumulation_steps: int = fields.flag(
    1,
    "Micro-batches a batch is computed in, to fit into memory. The result is "
    "that of the whole batch.",
    lower_bound=1,
    decides_result=True,
  )
  optimizer: str = fields.flag(
    "adamw",
    "BERT's Adam with weight decay, or LAMB for large batches.",
    choices=("adamw", "lamb"),
    decides_result=True,
  )
  schedule: str = fields.flag(
    "linear",
    "How the learning rate falls after the warmup.",
    choices=("linear", "polynomial", "cosine", "constant"),
    decides_result=True,
  )
  schedule_power: float = fields.flag(
    0.5,  # of the LAMB recipes published with BERT; 1 would be linear
    "Exponent of --schedule=polynomial.",
    lower_bound=0.0,
    decides_result=True,
  )
  seed: int = fields.flag(
    0,
    "Fixes initial weights, the order of the examples and dropout.",
    lower_bound=0,
    # The seed shares a 64-bit word with the replica's number.
    upper_bound=2**32 - 1,
    decides_result=True,
  )
  iterations_per_loop: int = fields.flag(
    1000,
    "Steps TensorFlow takes between returns to Python, at most.",
    lower_bound=1,
  )
  log_every_steps: int = fields.flag(
    100, "Steps between lines of the log.", lower_bound=1
  )
  overwrite_output_dir: bool = fields.flag(
    False, "Delete the run that --output_dir holds and start anew."
  )
  dry_run: bool = fields.flag(
    False,
    "Check data, disk and memory, measure a few steps, say whether the run is "
    "ready; write nothing.",
  )
  save_checkpoints_steps: int = fields.flag(
    1000, "Steps between checkpoints.", lower_bound=1
  )
  save_checkpoints_secs: float = fields.flag(
    0.0, "Seconds between further checkpoints; 0 for none.", lower_bound=0.0
  )
  on_nan: str = fields.flag(
    "stop",
    "A loss or gradient that is no number ends the run; or its step is left "
    "out; or the run goes back to its last checkpoint and on behind the batch.",
    choices=("stop", "skip", "rollback"),
  )
  keep_checkpoint_max: int = fields.flag(
    5, "Newest checkpoints to keep; 0 keeps all.", lower_bound=0
  )
  freeze_layers: str = ""
  num_train_steps: int = 0
  num_warmup_steps: int = 0
  adam_bias_correction: bool = False
  layerwise_lr_decay: float = 1.0
  eval_steps: int = 0
  clip_norm: float = 1.0

  def steps_until_boundary(self, step):
    """Counts the steps from `step` to the next return to Python."""
    intervals = (
      self.iterations_per_loop,
      self.log_every_steps,
      self.save_checkpoints_steps,
      self.eval_steps or self.num_train_steps,
    )
    return min(
      self.num_train_steps - step,
      *(interval - step % interval for interval in intervals),
    )


@dataclasses.dataclass(frozen=True)
class AnsweringConfig(fields.Config):
  """Flags of scripts that answer texts."""

  dry_run: bool = fields.flag(
    False,
    "Check model, texts and disk, answer a few, say how long all will take; "
    "write nothing.",
  )


@dataclasses.dataclass(frozen=True)
class ExportConfig(fields.Config):
  """Whether, where and how to export the model."""

  do_export: bool = fields.flag(
    False, "Write the model as a SavedModel that takes text."
  )
  export_dir: str | None = fields.flag(
    None,
    "Directory for the SavedModel. TensorFlow Serving wants MODEL/VERSION.",
  )
  export_format: tuple[str, ...] = fields.flag(
    ("savedmodel",),
    "savedmodel, or savedmodel,litert to add LiteRT files that take ids, in "
    "float32 and with int8 weights, and to measure what they lose.",
  )

  @property
  def wants_litert(self):
    """Returns whether LiteRT files are exported as well."""
    return "litert" in self.export_format

  def check_export(self):
    """Refuses --do_export without --export_dir, and unknown formats.

    Raises:
      ValueError: see above.
    """
    if self.do_export and not self.export_dir:
      raise ValueError("--do_export needs --export_dir")
    for name in self.export_format:
      if name not in EXPORT_FORMATS:
        raise ValueError(
          f"--export_format: there is no {name!r}; name one or both of "
          f"{', '.join(EXPORT_FORMATS)}"
        )


@dataclasses.dataclass(frozen=True)
class RunConfig(WeightsConfig, TrainingConfig, DeviceConfig, ExportConfig):
  """Flags of every script that trains."""

  bert_config_file: str | None = fields.variant(
    WeightsConfig,
    "bert_config_file",
    help="JSON file with the architecture of the model. Fine-tuning finds it "
    "beside the weights if it is not given.",
    decides_result=True,
  )
  init_checkpoint: str | None = fields.variant(
    WeightsConfig,
    "init_checkpoint",
    help="Weights to start from: a checkpoint prefix, or a directory with one "
    "or with a Hugging Face model.safetensors.",
    decides_result=True,
  )


@dataclasses.dataclass(frozen=True)
class FineTuningConfig(RunConfig):
  """Flags of every script that fine-tunes."""

  do_lower_case: bool = fields.variant(
    WeightsConfig, "do_lower_case", decides_result=True
  )
  do_train: bool = fields.flag(False, "Train.")
  num_train_epochs: float = fields.flag(
    3.0, "Passes over the training data.", lower_bound=0.0, decides_result=True
  )
  warmup_proportion: float = fields.flag(
    0.1,
    "Share of the steps during which the learning rate rises.",
    lower_bound=0.0,
    upper_bound=1.0,
    decides_result=True,
  )
  adam_bias_correction: bool = fields.flag(
    False,
    "Correct the bias of Adam's moments; steadies training on small data.",
    decides_result=True,
  )
  layerwise_lr_decay: float = fields.flag(
    1.0,
    "Each layer's learning rate, as a share of the one above it.",
    lower_bound=0.0,
    decides_result=True,
  )
  freeze_layers: str = fields.flag(
    "",
    "What not to train: embeddings, pooler, layers such as 0-7, or several of "
    "them with commas.",
    decides_result=True,
  )
  eval_steps: int = fields.flag(
    0,
    "Steps between evaluations during training, which keep the best weights; "
    "0 evaluates at the end only.",
    lower_bound=0,
    decides_result=True,
  )
  early_stopping_patience: int = fields.flag(
    0,
    "Stop after so many evaluations without a better one, each --eval_steps or "
    "an epoch apart; 0 trains to the end.",
    lower_bound=0,
    decides_result=True,
  )
  pad_to_max_length: bool = fields.flag(
    False,
    "Pad every sequence to --max_seq_length instead of to a few lengths.",
    decides_result=True,
  )
  max_seq_length: int = fields.flag(
    128, "Tokens of an example at most.", lower_bound=3, decides_result=True
  )

  @property
  def is_padded(self):
    """Returns whether all batches have one length, as a TPU requires."""
    return self.pad_to_max_length or self.strategy_name == "tpu"

  @property
  def is_monitored(self):
    """Returns whether there are evaluations during training."""
    return bool(self.eval_steps or self.early_stopping_patience)

  def with_steps(self, num_examples):
    """Returns this config with its numbers of steps, rounded as upstream.

    Early stopping evaluates after every epoch unless --eval_steps is given.

    Raises:
      ValueError: the examples do not fill one batch.
    """
    size, epochs = self.train_batch_size, self.num_train_epochs
    num_steps = int(num_examples / size * epochs)
    if not num_steps:
      raise ValueError(
        f"{num_examples} examples and --num_train_epochs={epochs} are less "
        f"than one batch of {size}; lower --train_batch_size or raise "
        "--num_train_epochs"
      )
    eval_steps = self.eval_steps
    if self.early_stopping_patience and not eval_steps:
      eval_steps = max(1, num_examples // size)
    return dataclasses.replace(
      self,
      num_train_steps=num_steps,
      num_warmup_steps=int(num_steps * self.warmup_proportion),
      eval_steps=eval_steps,
    )
