"""Names of the files that a model of ours comes with."""

CONFIG = "bert_config.json"
VOCAB = "vocab.txt"
LABELS = "labels.txt"
# A checkpoint's prefix: of published weights, and of a finished run's.
WEIGHTS = "bert_model.ckpt"
# Names the newest checkpoint of its directory.
CHECKPOINT_STATE = "checkpoint"
RUN_MANIFEST = "run_manifest.json"
# Of transformers, and written for it; it tells how texts were cased.
TOKENIZER_CONFIG = "tokenizer_config.json"
