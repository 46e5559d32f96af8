"""tfds builders of ImageNet-O, ImageNet-C and ImageNet-P, which tensorflow-datasets lacks."""
