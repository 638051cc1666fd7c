"""Pretrains BERT on the records of create_pretraining_data.py.

    python run_pretraining.py --input_file='records/*.tfrecord' \
      --bert_config_file=bert_config.json --output_dir=out \
      --do_train --do_eval

Masked-language-model and next-sentence losses, as google-research/bert's script
of the same name; the same flags, records and checkpoints.
"""

import os

from absl import flags

import cli_flags

FLAGS = flags.FLAGS

# Flags of this script, beside the shared ones, that decide a run's result.
SETTINGS = (
  "input_file",
  "max_seq_length",
  "max_predictions_per_seq",
  "num_train_steps",
  "num_warmup_steps",
)
# Records looked at before a run. A vocabulary that does not fit shows at once.
NUM_CHECKED_RECORDS = 256
# Which flag made a feature as long as it is.
LENGTH_FLAGS = {
  "input_ids": "max_seq_length",
  "masked_lm_positions": "max_predictions_per_seq",
}


def define_flags():
  """Defines this script's flags."""
  cli_flags.define_model_flags()
  flags.DEFINE_string(
    "input_file",
    None,
    "Records to train on: comma-separated paths or globs.",
    required=True,
  )
  flags.DEFINE_string(
    "eval_input_file",
    None,
    "Records to evaluate on; --input_file if not given.",
  )
  flags.DEFINE_integer(
    "max_seq_length", 128, "Tokens per record.", lower_bound=1
  )
  flags.DEFINE_integer(
    "max_predictions_per_seq", 20, "Masked tokens per record.", lower_bound=1
  )
  flags.DEFINE_bool("do_train", False, "Train.")
  flags.DEFINE_bool("do_eval", False, "Evaluate, after training if both.")
  flags.DEFINE_integer(
    "eval_batch_size", 8, "Examples per batch of evaluation.", lower_bound=1
  )
  flags.DEFINE_integer(
    "num_train_steps", 100000, "Updates to make.", lower_bound=1
  )
  flags.DEFINE_integer(
    "num_warmup_steps",
    10000,
    "Updates during which the learning rate rises.",
    lower_bound=0,
  )
  flags.DEFINE_integer(
    "max_eval_steps", 100, "Batches to evaluate at most.", lower_bound=1
  )
  cli_flags.define_training_flags()
  cli_flags.define_device_flags()


def main():
  """Checks everything, then trains and evaluates as asked."""
  if not FLAGS.do_train and not FLAGS.do_eval:
    raise ValueError("nothing to do: pass --do_train, --do_eval or both")
  cli_flags.load_tensorflow()
  import modeling
  import training_loop

  device_config = cli_flags.device_config()
  strategy = training_loop.make_strategy(device_config)
  config = modeling.BertConfig.from_json_file(FLAGS.bert_config_file)

  train_source, eval_source = open_sources(config)
  run = cli_flags.RunDirectory(
    FLAGS.output_dir,
    cli_flags.flag_values([*cli_flags.TRAINING_SETTINGS, *SETTINGS]),
    data_files=[FLAGS.bert_config_file, *train_source.paths],
    is_writer=training_loop.is_chief(strategy) and not FLAGS.dry_run,
  )

  training_loop.set_seed(FLAGS.seed)
  with strategy.scope():
    model = modeling.BertPretrainer(config, dtype=device_config.policy)

  if FLAGS.do_train:
    jit_compile = training_loop.uses_xla(strategy, device_config)
    train(strategy, model, train_source, run, jit_compile)
  if FLAGS.do_eval and not FLAGS.dry_run:
    evaluate(strategy, model, eval_source, run)


def open_sources(config):
  """Opens and checks the records of training and of evaluation."""
  import input_pipeline

  limit = config.max_position_embeddings
  if FLAGS.max_seq_length > limit:
    raise ValueError(
      f"--max_seq_length={FLAGS.max_seq_length} exceeds "
      f"max_position_embeddings {limit} of {FLAGS.bert_config_file}"
    )
  specs = input_pipeline.pretraining_features(
    FLAGS.max_seq_length, FLAGS.max_predictions_per_seq
  )
  index = input_pipeline.load_index(_index_path())
  sources = []
  for patterns in (FLAGS.input_file, FLAGS.eval_input_file or FLAGS.input_file):
    paths = input_pipeline.expand_patterns(patterns)
    source = input_pipeline.RecordSource(paths, specs, index)
    check_records(source, config)
    sources.append(source)
  return sources


def check_records(source, config):
  """Compares the first records with the flags and the vocabulary size.

  Args:
    source: input_pipeline.RecordSource.
    config: modeling.BertConfig.

  Raises:
    ValueError: they do not fit; the text says which flag or file to change.
  """
  import tensorflow as tf

  path, _ = source.locate(0)
  first = tf.train.Example.FromString(source.read([0])[0]).features.feature
  for spec in source.specs:
    found = len(first[spec.name].int64_list.value)
    flag = LENGTH_FLAGS.get(spec.name)
    if flag and found and found != spec.length:
      raise ValueError(
        f"the records of {path} were made with --{flag}={found}, not "
        f"{spec.length}; pass --{flag}={found} or create them again"
      )
  batch = source.take(range(min(len(source), NUM_CHECKED_RECORDS)))
  largest = max(batch["input_ids"].max(), batch["masked_lm_ids"].max())
  if largest >= config.vocab_size:
    raise ValueError(
      f"{path} holds token id {largest}, but vocab_size is "
      f"{config.vocab_size} in {FLAGS.bert_config_file}; the records were made "
      "with the vocabulary of another model"
    )


def train(strategy, model, source, run, jit_compile):
  """Trains to the last step, from where output_dir left off if it did."""
  import checkpoint_io
  import training_loop

  trainer = training_loop.Trainer(
    strategy,
    model,
    cli_flags.training_config(FLAGS.num_train_steps, FLAGS.num_warmup_steps),
    jit_compile=jit_compile,
  )
  state = run.open(FLAGS.overwrite_output_dir)
  if state == "finished":
    print(
      f"training is skipped: {run.path} holds this run, finished "
      "(--overwrite_output_dir starts it anew)"
    )
    return
  if state == "unfinished" and trainer.resume():
    print(f"resuming at step {trainer.step}, from {run.path}")
  elif FLAGS.init_checkpoint:
    print(checkpoint_io.load_weights(trainer.weights, FLAGS.init_checkpoint))
  if FLAGS.dry_run:
    print(f"dry run: ready to train on {len(source)} records, nothing written")
    return
  run.claim()
  run.write("bert_config.json", model.config.to_json_string())
  if run.is_writer:
    source.save_index(_index_path())
  trainer.fit(source, log_to=run.path if run.is_writer else None)
  if run.is_writer:
    final = os.path.join(run.path, "bert_model.ckpt")
    checkpoint_io.save(final, trainer.weights)
  run.record({}, finished=True)


def evaluate(strategy, model, source, run):
  """Computes upstream's metrics and writes eval_results.txt."""
  import training_loop

  global_step = restore_newest(model)
  results = training_loop.evaluate(
    strategy, model, source, FLAGS.eval_batch_size, FLAGS.max_eval_steps
  )
  text = training_loop.format_results({"global_step": global_step, **results})
  run.write("eval_results.txt", text)
  run.record(results)
  print(text, end="")


def restore_newest(model):
  """Loads output_dir's newest checkpoint, else --init_checkpoint.

  Returns:
    The global step of the run it belongs to, 0 for --init_checkpoint.

  Raises:
    ValueError: there is neither.
  """
  import checkpoint_io
  import modeling

  newest = checkpoint_io.latest(FLAGS.output_dir)
  if not newest and not FLAGS.init_checkpoint:
    raise ValueError(
      f"nothing to evaluate: {FLAGS.output_dir} holds no checkpoint; train "
      "with --do_train or name one with --init_checkpoint"
    )
  weights = modeling.named_variables(model)
  checkpoint_io.load_weights(weights, newest or FLAGS.init_checkpoint)
  return checkpoint_io.read_global_step(newest) if newest else 0


def _index_path():
  return os.path.join(FLAGS.output_dir, "record_index.json")


def cli():
  """Entry point of the console script."""
  cli_flags.run(main, define_flags)


if __name__ == "__main__":
  cli()
