"""Names the files beside a model's weights."""

CONFIG = "bert_config.json"
VOCAB = "vocab.txt"
LABELS = "labels.txt"
# The prefix of published weights, and of a finished run's weights.
WEIGHTS = "bert_model.ckpt"
# Names the newest checkpoint of its directory.
CHECKPOINT_STATE = "checkpoint"
RUN_MANIFEST = "run_manifest.json"
# A file of transformers that says how texts were cased.
TOKENIZER_CONFIG = "tokenizer_config.json"
