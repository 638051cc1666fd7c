"""Measures this project against named peers; each module is a program.

    python -m benchmarks.tokenizer_speed

They run in the root of a checkout and print ratios, which are measured in turns
(`in_turns`). Those against PyTorch need the `bench` extra.
"""
