"""Views of an image: decoding, cropping, colour operations, RandAugment."""
