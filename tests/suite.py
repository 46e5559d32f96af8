"""Runs evaluate.py on partial test sets and reads its results."""

import json

import evaluate as command


def run(*arguments):
    return command.main([str(a) for a in ("--batch_size", 16, "--allow_partial", *arguments)])


def entries(output_dir):
    return {e["dataset"]: e for e in json.loads((output_dir / "results.json").read_text())}
