"""Opens models that fill masks, from a checkpoint or from an export."""

import tensorflow as tf

import modeling
from bert_keras3.serving import mask_filling
from bert_keras3.serving import predictor
from bert_keras3.weights import checkpoints
from bert_keras3.weights import companions


def open_model(config):
  """Opens the model of a script's flags.

  Args:
    config: FillMaskConfig.

  Returns:
    mask_filling.MaskFiller.

  Raises:
    ValueError, OSError: see `from_checkpoint` and mask_filling.from_export.
  """
  if config.init_checkpoint:
    return from_checkpoint(config, config.batch_size)
  return mask_filling.from_export(
    config.export_dir,
    config.special_tokens_in_text,
    config.max_seq_length,
    config.batch_size,
  )


def from_checkpoint(config, batch_size=32):
  """Makes a MaskFiller with the weights of a checkpoint.

  Args:
    config: configs.WeightsConfig with special_tokens_in_text "keep", such as
      run_fill_mask.FillMaskConfig; else `[MASK]` is three tokens.
    batch_size: sequences that go through the model together.

  Returns:
    mask_filling.MaskFiller.

  Raises:
    ValueError, OSError: a file is missing, or they do not fit each other. Heads
      may be missing until they are needed.
  """
  checkpoints.resolve(config.init_checkpoint)
  pretrained = companions.open_pretrained(config)
  bert_config = pretrained.bert_config
  predict, missing = _load_pretrainer(bert_config, config.init_checkpoint)
  return mask_filling.MaskFiller(
    pretrained.tokenizer,
    predict,
    config.max_seq_length or bert_config.max_position_embeddings,
    batch_size,
    missing,
  )


def _load_pretrainer(bert_config, init_checkpoint):
  """Loads a modeling.BertPretrainer.

  Returns:
    (`predict` for a MaskFiller, names of the weights the checkpoint lacked).
  """
  model = modeling.BertPretrainer(bert_config)
  weights = modeling.named_variables(model)
  report = checkpoints.load_weights(weights, init_checkpoint)
  spec = tf.TensorSpec([None, None], tf.int32)
  specs = dict.fromkeys(predictor.MASKED_SEQUENCES, spec)
  predict = tf.function(
    lambda batch: model(batch, training=False), input_signature=[specs]
  )
  return predict, report.initialised
