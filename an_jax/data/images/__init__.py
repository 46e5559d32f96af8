"""Images as arrays: decoding, resizing and cropping, augmentation, normalization, videos."""
