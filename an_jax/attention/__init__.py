"""What Attentive Normalization attends to: its mixture weights over a set of images."""

DIRECTORY = "attention"  # in an --output_dir
