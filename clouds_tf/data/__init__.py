"""train.csv and JPEG files -> batches of images and masks."""
