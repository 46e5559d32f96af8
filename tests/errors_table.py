"""Prints docs/parity.md's table of errors: `python -m tests.errors_table REPORT.xml...`.

`make test-all` writes such a report to .cache/test-all.xml.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

# Property that a test gives to `record_error` -> heading.
COLUMNS = {
    "float32 eval 96": "float32 eval, 96 px",
    "float32 eval 224": "float32 eval, 224 px",
    "float64 eval 96": "float64 eval, 96 px",
    "float64 eval 224": "float64 eval, 224 px",
    "float64 stages": "stage statistics",
    "train logits": "train logits",
    "gradient norm": "gradient norm",
    "sgd losses": "SGD losses, large rate",
    "sgd_small losses": "SGD losses, small rate",
}
# Prefix of a model's name -> family.
FAMILIES = {
    "resnet_": "ResNet",
    "resnetv1d_": "ResNetV1d",
    "mobilenetv2_": "MobileNetV2",
    "densenet_": "DenseNet",
    "aognet_12m_": "AOGNet-12M",
    "aognet_40m_": "AOGNet-40M",
    "aognet_v2/": "AOGNet-V2",
}


def largest_errors(reports: list[Path]) -> dict[tuple[str, str], float]:
    """Returns (prefix of the model's name, property) -> largest error of all tests."""
    errors: dict[tuple[str, str], float] = defaultdict(float)
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):
            _, _, model = case.attrib["name"].partition("[")
            for prefix in filter(model.startswith, FAMILIES):
                for entry in case.iter("property"):
                    key = prefix, entry.attrib["name"]
                    errors[key] = max(errors[key], float(entry.attrib["value"]))
    return errors


def table(reports: list[Path]) -> str:
    """Returns a Markdown table with a row for each family."""
    errors = largest_errors(reports)
    rows = [["family", *COLUMNS.values()], ["---", *["---:"] * len(COLUMNS)]]
    for prefix, family in FAMILIES.items():
        cells = [errors.get((prefix, name)) for name in COLUMNS]
        rows.append([family, *("" if cell is None else f"{cell:.1e}" for cell in cells)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.errors_table", description=__doc__)
    parser.add_argument("reports", type=Path, nargs="+", metavar="REPORT.xml")
    print(table(parser.parse_args().reports), end="")
